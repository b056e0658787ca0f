"""Recipes: a model preset and phases that say what is trained, on what, and for how long. Impossible settings are refused.

Every phase starts from the file that the phase before wrote, and writes a file of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..common.checks import InputError, check_choice, check_number, check_positive, check_size
from ..models.config import PRESETS
from ..sprites.scene import MARGIN

OBJECTIVES = ("autoencoder", "diffusion")
TRAINABLE = ("unet", "temporal", "retention", "text_encoder")
MIXED_PRECISION = ("auto", "no", "bf16", "fp16")
OPTIMIZERS = ("adamw", "adafactor")
CROPS = ("centre", "random")
SPRITES = "sprites"  # the small world as a phase's data; any other name is a path
# Settings that one kind of data has and the other lacks.
_SPRITES_ONLY = ("clips", "margin", "chain_stages", "hand_over", "sprite_weight")
_VIDEOS_ONLY = ("stride", "crop", "windows", "held_out", "epochs")
# Settings that change speed, samples or logs, but not the trained weights.
NO_EFFECT_ON_WEIGHTS = ("readers", "cuda_graphs", "sample_steps", "sample_every", "log_every", "checkpoint_minutes")
# Settings by their allowed numbers; `steps` is a count too, unless `epochs` replaces it.
_COUNTS = (
    "batch_size", "num_frames", "clips", "chain_stages", "stride", "windows", "gradient_accumulation", "sample_steps",
    "sample_every", "log_every",
)  # fmt: skip
_COUNTS_FROM_0 = ("held_out", "readers")
_PROBABILITIES = ("drop_text", "drop_image", "hand_over")
_MORE_THAN_0 = ("learning_rate", "checkpoint_minutes", "timestep_power", "sprite_weight")


@dataclass(frozen=True)
class Phase:
    """One run of the optimiser, with linear warm-up and cosine decay of the learning rate."""

    name: str
    objective: str
    steps: int  # 0 if `epochs` are given, until `with_steps` converts them
    batch_size: int  # at the first of `sizes`; other sizes get about as many pixels
    learning_rate: float
    trainable: tuple[str, ...] = ()
    epochs: float = 0.0  # instead of steps: passes over the videos
    data: str = SPRITES  # or a folder of videos, a table (.csv, .jsonl), a shard (.tar), or a folder of shards
    stride: int = 1  # every so many-th frame of a video is taken
    crop: str = "centre"  # of videos with another aspect ratio
    windows: int = 1  # per video, spread over it
    held_out: int = 0  # videos for samples only, at most a tenth of all
    readers: int = 2  # threads that read batches ahead; 0 reads in the training loop
    optimizer: str = "adamw"
    gradient_accumulation: int = 1  # batches per step
    gradient_checkpointing: bool = False  # less memory, about a third more time
    cuda_graphs: bool = False  # on one GPU: small models train several times as fast, with more memory
    warmup_steps: int = 100
    final_learning_rate: float = 0.02  # as a fraction of learning_rate
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999  # of the averaged weights, which are saved; 0 saves the last weights
    sizes: tuple[tuple[int, int], ...] = ((64, 64),)  # (height, width); batches take them in turn
    num_frames: int = 8
    clips: int = 8192  # distinct clips in the cache; other sizes get as many pixels, as for batch_size
    margin: float = MARGIN  # of the scenes: a small one leaves some sprites partly outside
    timestep_power: float = 1.0  # timesteps are 1000 u^(1/power), u uniform; above 1 favours noisy ones
    drop_text: float = 0.0
    drop_image: float = 0.0
    chain_stages: int = 1  # clips are the stages of chains of this length
    # The share of images that the model at the phase's start hands over, instead of true first frames. Targets stay true.
    hand_over: float = 0.0
    sprite_weight: float = 1.0  # of the error where the acting sprite is at any time; 1 elsewhere
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
        for name in self.trainable:
            check_choice(f"phase {self.name}: trainable", name, TRAINABLE)
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
            self._check_number(name, 0, 1, kind=", a probability,")
        for name in _MORE_THAN_0:
            check_positive(f"phase {self.name}: {name}", getattr(self, name))
        if not 0 <= self.margin < 0.5:
            raise InputError(f"phase {self.name}: margin is {self.margin}; it is a share of a side, from 0 to below 0.5")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"phase {self.name}: ema_decay is {self.ema_decay}; allowed: from 0 to below 1")

    def _check_number(self, setting: str, low: int, high: float = math.inf, kind: str = "") -> None:
        check_number(f"phase {self.name}: {setting}{kind}", getattr(self, setting), low, high)

    def _check_chains(self) -> None:
        if self.hand_over and (self.chain_stages == 1 or "retention" not in self.trainable):
            raise InputError(
                f"phase {self.name}: hand_over is {self.hand_over}; a chain of 2 chain_stages or more and a retention branch "
                "that is trained are needed for it"
            )
        if self.chain_stages > 1 and self.margin != MARGIN:
            raise InputError(f"phase {self.name}: margin is {self.margin}; chains keep their sprites inside, leave it out")

    def _check_graphs(self) -> None:
        """CUDA graphs cannot accumulate gradients over batches, and cannot capture checkpointed layers."""
        for name in ("objective", "gradient_accumulation", "gradient_checkpointing"):
            allowed = "diffusion" if name == "objective" else getattr(Phase, name)
            if getattr(self, name) != allowed:
                raise InputError(
                    f"phase {self.name}: {name} is {getattr(self, name)} and cuda_graphs is true; with graphs {name} must be "
                    f"{allowed}. Leave cuda_graphs out, or change {name}"
                )

    def _check_epochs(self) -> None:
        check_positive(f"phase {self.name}: epochs", self.epochs)
        if self.steps:
            raise InputError(f"phase {self.name}: steps is {self.steps} and epochs {self.epochs}; give one of them")
        if len(self.sizes) > 1:
            raise InputError(f"phase {self.name}: epochs with {len(self.sizes)} sizes cannot be counted; give steps")

    def with_steps(self, clips: int, processes: int) -> Phase:
        """The same phase with steps instead of epochs, if it has these."""
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
        """How many clips of `size` have about as many pixels as `count` of the first size: equal cost and epochs."""
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
