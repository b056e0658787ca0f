"""Recipes: what is trained, on what, for how long. One TOML file, one table a phase.

Every phase starts from the file that the phase before it wrote, and writes one file of its own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from ..config import PRESETS
from ..sprites.scene import MARGIN

RECIPES = Path(__file__).parent / "recipes"
OBJECTIVES = ("autoencoder", "diffusion")
TRAINABLE = ("unet", "temporal", "retention", "text_encoder")
MIXED_PRECISION = ("auto", "no", "bf16", "fp16")
OPTIMIZERS = ("adamw", "adafactor")
CROPS = ("centre", "random")
SPRITES = "sprites"  # the name of the procedural world as a phase's data; any other name is a path
# Settings that one kind of data has and the other lacks.
_SPRITES_ONLY = ("clips", "margin", "chain_stages", "hand_over", "sprite_weight")
_VIDEOS_ONLY = ("stride", "crop", "windows", "held_out", "epochs")
HELD_OUT = 4  # of videos, where a recipe does not say it
# Settings of a phase that hurry, show or save what happens and change none of it.
ONLY_SEEN = ("readers", "sample_steps", "sample_every", "log_every", "checkpoint_minutes")
# What a setting may be, and how that is called, by its annotation.
_TYPES = {
    "str": (str, "a text"), "int": (int, "a whole number"), "float": ((int, float), "a number"),
    "bool": (bool, "true or false"),
}  # fmt: skip


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
        if self.objective not in OBJECTIVES:
            raise ValueError(f"phase {self.name}: objective is {self.objective!r}; allowed: {', '.join(OBJECTIVES)}")
        unknown = set(self.trainable) - set(TRAINABLE)
        if unknown:
            raise ValueError(f"phase {self.name}: trainable has {sorted(unknown)}; allowed: {', '.join(TRAINABLE)}")
        if (self.objective == "diffusion") != bool(self.trainable):
            raise ValueError(f"phase {self.name}: `trainable` belongs to the diffusion objective, and only there")
        if self.data != SPRITES and self.objective != "diffusion":
            raise ValueError(f"phase {self.name}: data is {self.data!r}; the {self.objective} objective has sprites only")
        for name in _VIDEOS_ONLY if self.data == SPRITES else _SPRITES_ONLY:
            if getattr(self, name) != getattr(Phase, name):
                kind = "videos" if self.data == SPRITES else "sprites"
                raise ValueError(f"phase {self.name}: {name} belongs to {kind}, and data is {self.data!r}; leave {name} out")
        for name, allowed in (("optimizer", OPTIMIZERS), ("crop", CROPS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"phase {self.name}: {name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not self.sizes:
            raise ValueError(f"phase {self.name}: sizes is empty; give at least one pair of height and width")
        for height, width in self.sizes:
            if min(height, width) < 8 or height % 8 or width % 8:
                raise ValueError(f"phase {self.name}: sizes has {height} x {width}; both must be multiples of 8")
        for name in ("drop_text", "drop_image", "hand_over"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"phase {self.name}: {name} is {getattr(self, name)}; it is a probability, 0 to 1")
        if self.hand_over and (self.chain_stages == 1 or "retention" not in self.trainable):
            raise ValueError(
                f"phase {self.name}: hand_over is {self.hand_over}; a chain of 2 chain_stages or more and a retention branch "
                "that is trained are needed for it"
            )
        if self.chain_stages > 1 and self.margin != MARGIN:
            raise ValueError(f"phase {self.name}: margin is {self.margin}; chains keep their sprites inside, leave it out")
        if not 0 <= self.margin < 0.5:
            raise ValueError(f"phase {self.name}: margin is {self.margin}; it is a share of a side, from 0 to below 0.5")
        for name in ("learning_rate", "checkpoint_minutes", "timestep_power", "sprite_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"phase {self.name}: {name} is {getattr(self, name)}; it must be more than 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"phase {self.name}: ema_decay is {self.ema_decay}; allowed: from 0 to below 1")
        if self.epochs:
            self._check_epochs()
        counts = (
            "batch_size", "num_frames", "clips", "chain_stages", "stride", "windows", "gradient_accumulation", "sample_steps",
            "sample_every", "log_every",
        )  # fmt: skip
        least = dict.fromkeys(counts if self.epochs else ("steps", *counts), 1) | {"held_out": 0, "readers": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"phase {self.name}: {name} is {getattr(self, name)}; it must be at least {value}")

    def _check_epochs(self) -> None:
        if not 0 < self.epochs < math.inf:
            raise ValueError(f"phase {self.name}: epochs is {self.epochs}; it must be more than 0")
        if self.steps:
            raise ValueError(f"phase {self.name}: steps is {self.steps} and epochs {self.epochs}; give one of them")
        if len(self.sizes) > 1:
            raise ValueError(f"phase {self.name}: epochs with {len(self.sizes)} sizes cannot be counted; give steps")

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
        if self.preset not in PRESETS:
            raise ValueError(f"preset is {self.preset!r}; allowed: {', '.join(PRESETS)}")
        if self.mixed_precision not in MIXED_PRECISION:
            raise ValueError(f"mixed_precision is {self.mixed_precision!r}; allowed: {', '.join(MIXED_PRECISION)}")
        if not self.phases:
            raise ValueError(f"recipe {self.name} has no [[phases]] table; it needs at least one")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"recipe {self.name} has phases {', '.join(names)}; every phase needs a name of its own")


def _checked(cls, table: dict, where: str):
    names = {f.name for f in fields(cls)}
    missing = {f.name for f in fields(cls) if f.default is MISSING} - set(table)
    if missing or set(table) - names:
        problems = [f"unknown: {', '.join(sorted(set(table) - names))}"] if set(table) - names else []
        problems += [f"missing: {', '.join(sorted(missing))}"] if missing else []
        raise ValueError(f"{where}: {'; '.join(problems)}. Known settings: {', '.join(sorted(names))}")
    for field in fields(cls):
        kind, called = _TYPES.get(field.type, (object, ""))
        value = table.get(field.name, field.default)
        if field.name in table and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
            raise ValueError(f"{where}: {field.name} is {table[field.name]!r}; it must be {called}")
    return cls(**table)


def load_recipe(source: str | Path, changes: Sequence[str] = (), data: str | None = None) -> Recipe:
    """Read a recipe by the name of one that ships (`sprites`) or by the path of a TOML file.

    `changes` are settings of the command line, `key=value` of the recipe or `phase.key=value` of a phase, the values as
    TOML. `data` takes the place of every diffusion phase's own.
    """
    path = Path(source)
    if path.suffix != ".toml":
        path = RECIPES / f"{source}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise FileNotFoundError(f"no recipe {str(source)!r}: give the path of a .toml file or one of: {shipped}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no TOML file: {error}") from error
    tables = table.pop("phases", [])
    if not isinstance(tables, list) or not all(isinstance(phase, dict) for phase in tables):
        raise ValueError(f"{path.name}: phases is {tables!r}; write one [[phases]] table for each")
    for phase in tables:
        if data is not None and phase.get("objective") == "diffusion":
            phase["data"] = data
    for change in changes:
        _change(table, tables, change)
    phases = tuple(_phase(phase, f"{path.name}, phase {number}") for number, phase in enumerate(tables))
    return _checked(Recipe, {**table, "phases": phases}, path.name)


def _change(recipe: dict, phases: list[dict], change: str) -> None:
    """Put one `key=value` or `phase.key=value` into the tables."""
    place, _, text = change.partition("=")
    phase, _, key = place.strip().rpartition(".")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError as error:
        advice = 'write key=value or phase.key=value, the value as in TOML, a text in quotes: name="mine"'
        raise ValueError(f"--set is {change!r}; {advice}") from error
    named = {str(table.get("name")): table for table in phases}
    if phase and phase not in named:
        raise ValueError(f"--set is {change!r}, but there is no such phase; allowed: {', '.join(named)}")
    table = named[phase] if phase else recipe
    if key in ("steps", "epochs"):  # one takes the place of the other
        table.pop("epochs" if key == "steps" else "steps", None)
    table[key] = value


def _phase(table: dict, where: str) -> Phase:
    trainable = table.get("trainable", [])
    if not isinstance(trainable, list) or not all(isinstance(name, str) for name in trainable):
        raise ValueError(f"{where}: trainable is {trainable!r}; allowed: a list out of {', '.join(TRAINABLE)}")
    sizes = table.get("sizes", [list(size) for size in Phase.sizes])
    if not isinstance(sizes, list) or not all(_is_size(size) for size in sizes):
        raise ValueError(f"{where}: sizes is {sizes!r}; allowed: a list of [height, width] pairs, such as [[64, 64]]")
    given = {"steps": 0} if "epochs" in table and "steps" not in table else {}
    if table.get("data", SPRITES) != SPRITES:
        given["held_out"] = table.get("held_out", HELD_OUT)
    return _checked(Phase, {**table, **given, "trainable": tuple(trainable), "sizes": tuple(map(tuple, sizes))}, where)


def _is_size(size: object) -> bool:
    return isinstance(size, list) and len(size) == 2 and all(type(n) is int for n in size)
