"""Recipes: a model preset and phases, each with what is trained, on what, for how long; what cannot be trained is refused.

Every phase starts from the file that the phase before it wrote, and writes one file of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..common.checks import InputError, check_choice, check_number, check_size
from ..models.config import PRESETS
from ..sprites.scene import MARGIN

OBJECTIVES = ("autoencoder", "diffusion")
TRAINABLE = ("unet", "temporal", "retention", "text_encoder")
MIXED_PRECISION = ("auto", "no", "bf16", "fp16")
OPTIMIZERS = ("adamw", "adafactor")
CROPS = ("centre", "random")
SPRITES = "sprites"  # the name of the procedural world as a phase's data; any other name is a path
# Settings that one kind of data has and the other lacks.
_SPRITES_ONLY = ("clips", "margin", "chain_stages", "hand_over", "sprite_weight")
_VIDEOS_ONLY = ("stride", "crop", "windows", "held_out", "epochs")
# Settings of a phase that hurry, show or save what happens and change none of it.
ONLY_SEEN = ("readers", "cuda_graphs", "sample_steps", "sample_every", "log_every", "checkpoint_minutes")
# Settings by what a number may be; `steps` are a count too, where no epochs take their place.
_COUNTS = (
    "batch_size", "num_frames", "clips", "chain_stages", "stride", "windows", "gradient_accumulation", "sample_steps",
    "sample_every", "log_every",
)  # fmt: skip
_COUNTS_FROM_0 = ("held_out", "readers")
_PROBABILITIES = ("drop_text", "drop_image", "hand_over")
_MORE_THAN_0 = ("learning_rate", "checkpoint_minutes", "timestep_power", "sprite_weight")


@dataclass(frozen=True)
class Phase:
    """One run of the optimiser (cosine rate)."""

    name: str
    objective: str
    steps: int  # 0 where `epochs` are given, until `with_steps` counts them out
    batch_size: int  # at the first of `sizes`; at the others as many clips as have about as many pixels
    learning_rate: float
    trainable: tuple[str, ...] = ()
    epochs: float = 0.0  # in place of steps: how often every video is seen
    data: str = SPRITES  # or a folder of videos, a table (.csv, .jsonl), a shard (.tar), or a folder of shards
    stride: int = 1  # of the videos' frames every so many-th
    crop: str = "centre"  # what of a video with another aspect ratio is kept
    windows: int = 1  # of every video, spread over it
    held_out: int = 0  # videos that are shown in samples and never trained on, at most a tenth of all
    readers: int = 2  # threads that read batches ahead; 0: each is read when its turn has come
    optimizer: str = "adamw"
    gradient_accumulation: int = 1  # batches in one step
    gradient_checkpointing: bool = False  # less memory, about a third more time
    cuda_graphs: bool = False  # on one GPU: a model that is small trains several times as fast, in more memory
    warmup_steps: int = 100
    final_learning_rate: float = 0.02  # as a fraction of learning_rate
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999  # of the averaged weights that are written; 0: the weights themselves
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)  # height, width: batches take them in turn
    num_frames: int = 8
    clips: int = 8192  # distinct clips in the latent cache, counted like batch_size
    margin: float = MARGIN  # of the scenes: a small one leaves some sprites partly outside
    timestep_power: float = 1.0  # timesteps are 1000 u^(1/power), u uniform: above 1 they favour the noisy end
    drop_text: float = 0.0
    drop_image: float = 0.0
    chain_stages: int = 1  # clips are the stages of chains this long, each beginning where the one before ends
    # Share of the images behind a chain's first that the model which the phase begins with hands over; clips stay true.
    hand_over: float = 0.0
    sprite_weight: float = 1.0  # how much the error counts where a sprite is at any time; 1 elsewhere
    sample_steps: int = 25
    sample_every: int = 500
    log_every: int = 20
    checkpoint_minutes: float = 4.0

    def __post_init__(self):
        self._check_objective()
        self._check_data()
        for setting, allowed in (("optimizer", OPTIMIZERS), ("crop", CROPS)):
            check_choice(f"phase {self.name}: {setting}", getattr(self, setting), allowed)
        self._check_sizes()
        self._check_numbers()
        self._check_chains()
        if self.cuda_graphs:
            self._check_graphs()
        if self.epochs:
            self._check_epochs()

    def _check_objective(self) -> None:
        check_choice(f"phase {self.name}: objective", self.objective, OBJECTIVES)
        unknown = set(self.trainable) - set(TRAINABLE)
        if unknown:
            raise InputError(f"phase {self.name}: trainable has {sorted(unknown)}; allowed: {', '.join(TRAINABLE)}")
        if (self.objective == "diffusion") != bool(self.trainable):
            raise InputError(f"phase {self.name}: `trainable` belongs to the diffusion objective, and only there")

    def _check_data(self) -> None:
        if self.data != SPRITES and self.objective != "diffusion":
            raise InputError(f"phase {self.name}: data is {self.data!r}; the {self.objective} objective has sprites only")
        kind, others = ("videos", _VIDEOS_ONLY) if self.data == SPRITES else ("sprites", _SPRITES_ONLY)
        for name in others:
            if getattr(self, name) != getattr(Phase, name):
                raise InputError(f"phase {self.name}: {name} belongs to {kind}, and data is {self.data!r}; leave {name} out")

    def _check_sizes(self) -> None:
        if not self.sizes:
            raise InputError(f"phase {self.name}: sizes is empty; give at least one pair of height and width")
        for height, width in self.sizes:
            for side, value in (("height", height), ("width", width)):
                check_size(f"phase {self.name}: sizes has {height} x {width}, whose {side}", value)

    def _check_numbers(self) -> None:
        for name in _COUNTS if self.epochs else ("steps", *_COUNTS):
            self._check_number(name, 1)
        for name in _COUNTS_FROM_0:
            self._check_number(name, 0)
        for name in _PROBABILITIES:
            self._check_number(name, 0, 1, called=", a probability,")
        for name in _MORE_THAN_0:
            if not getattr(self, name) > 0:
                raise InputError(f"phase {self.name}: {name} is {getattr(self, name)}; it must be more than 0")
        if not 0 <= self.margin < 0.5:
            raise InputError(f"phase {self.name}: margin is {self.margin}; it is a share of a side, from 0 to below 0.5")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"phase {self.name}: ema_decay is {self.ema_decay}; allowed: from 0 to below 1")

    def _check_number(self, setting: str, low: int, high: float = math.inf, called: str = "") -> None:
        check_number(f"phase {self.name}: {setting}{called}", getattr(self, setting), low, high)

    def _check_chains(self) -> None:
        if self.hand_over and (self.chain_stages == 1 or "retention" not in self.trainable):
            raise InputError(
                f"phase {self.name}: hand_over is {self.hand_over}; a chain of 2 chain_stages or more and a retention branch "
                "that is trained are needed for it"
            )
        if self.chain_stages > 1 and self.margin != MARGIN:
            raise InputError(f"phase {self.name}: margin is {self.margin}; chains keep their sprites inside, leave it out")

    def _check_graphs(self) -> None:
        """Graphs keep no gradients from one batch to the next, and layers that are computed again cannot be recorded."""
        for name in ("objective", "gradient_accumulation", "gradient_checkpointing"):
            allowed = "diffusion" if name == "objective" else getattr(Phase, name)
            if getattr(self, name) != allowed:
                raise InputError(
                    f"phase {self.name}: {name} is {getattr(self, name)} and cuda_graphs is true; with graphs {name} must be "
                    f"{allowed}. Leave cuda_graphs out, or change {name}"
                )

    def _check_epochs(self) -> None:
        if not 0 < self.epochs < math.inf:
            raise InputError(f"phase {self.name}: epochs is {self.epochs}; it must be more than 0")
        if self.steps:
            raise InputError(f"phase {self.name}: steps is {self.steps} and epochs {self.epochs}; give one of them")
        if len(self.sizes) > 1:
            raise InputError(f"phase {self.name}: epochs with {len(self.sizes)} sizes cannot be counted; give steps")

    def with_steps(self, clips: int, processes: int) -> Phase:
        """The same phase with its epochs counted out in steps, where it has any."""
        if not self.epochs:
            return self
        steps = math.ceil(self.epochs * clips / (self.batch_size * self.gradient_accumulation * processes))
        return replace(self, steps=steps, epochs=0.0)

    def batch_size_of(self, number: int) -> int:
        """Clips in batch `number`."""
        return self.batch_size_at(self.sizes[number % len(self.sizes)])

    def batch_size_at(self, size: tuple[int, int]) -> int:
        return self._scaled(self.batch_size, size)

    def clips_at(self, size: tuple[int, int]) -> int:
        return self._scaled(self.clips, size)

    def _scaled(self, count: int, size: tuple[int, int]) -> int:
        """As many of `size` as make about the pixels of `count` of the first size: equal cost, equally many epochs."""
        return max(1, round(count * math.prod(self.sizes[0]) / math.prod(size)))


@dataclass(frozen=True)
class Recipe:
    """A model preset and the phases that make it."""

    name: str
    preset: str
    phases: tuple[Phase, ...]
    seed: int = 0
    mixed_precision: str = "no"

    def __post_init__(self):
        check_choice("preset", self.preset, tuple(PRESETS))
        check_choice("mixed_precision", self.mixed_precision, MIXED_PRECISION)
        if not self.phases:
            raise InputError(f"recipe {self.name} has no [[phases]] table; it needs at least one")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise InputError(f"recipe {self.name} has phases {', '.join(names)}; every phase needs a name of its own")
