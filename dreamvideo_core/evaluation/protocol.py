"""The small world's protocol: clips of unseen scenes are generated in every mode and compared with the true ones."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from kornia.metrics import psnr
from torch import Tensor

from ..common.checks import InputError, check_choice, check_number
from ..media.images import to_uint8
from ..models.config import ModelConfig
from ..sampling.pipeline import Pipeline
from ..sprites import Clip, render_batch, sample_clip, sentence
from ..sprites.scene import MARGIN, seeded
from .metrics import ssim_map
from .reading import read_sprite
from .sprites import Candidates, first_region, looks_alike, other_clip, swept_region

MODES = ("t2v", "i2v", "ti2v")


def modes_of(config: ModelConfig, name: str) -> tuple[str, ...]:
    """The modes that the model called `name` has; `InputError` for one that needs a last picture, which there is none of."""
    if config.unet.image_latents == "ends":
        raise InputError(f"{name} goes from a first to a last picture, and clips are made of a first one; give another model")
    if config.unet.sees_image:
        return tuple(mode for mode in MODES if mode != "t2v")
    return MODES if config.takes_image else ("t2v",)


@dataclass(frozen=True, kw_only=True)
class BaseProtocol:
    """How clips of a split are generated. `seed` chooses the scenes and the noise."""

    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    text_scale: float
    image_scale: float
    order: str = "text_first"
    rescale: float = 0.0
    eta: float = 0.0
    fps: int | None = None
    split: str = "test"

    def __post_init__(self):
        check_number("num_frames", self.num_frames, 2)  # one frame shows no motion

    @property
    def size(self) -> dict[str, int]:
        return {"num_frames": self.num_frames, "height": self.height, "width": self.width}

    @property
    def options(self) -> dict[str, float | str]:
        """Arguments of `Pipeline.__call__` besides prompts, image and seed."""
        names = ("steps", "text_scale", "image_scale", "order", "rescale", "eta", "fps")
        return {**self.size, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True, kw_only=True)
class Protocol(BaseProtocol):
    """`clips` single clips in every mode. A batch draws its noise at once, so `batch_size` changes the result."""

    clips: int
    batch_size: int = 4
    modes: tuple[str, ...] = MODES
    margin: float = MARGIN

    def __post_init__(self):
        super().__post_init__()
        check_number("clips", self.clips, 1)
        for mode in self.modes:
            check_choice("modes", mode, MODES)


Values = dict[str, list[float]]


@dataclass
class Measurements:
    """Values per clip by the measure's name; NaN if a measure does not apply to a clip."""

    modes: dict[str, Values]
    ceiling: Values = field(default_factory=dict)  # of true clips, encoded and decoded
    frozen: Values = field(default_factory=dict)  # of the first frame standing still
    chance: list[float] = field(default_factory=list)  # that a guess finds the action
    seconds: dict[str, float] = field(default_factory=dict)  # of sampling, by mode
    clips: list[Clip] = field(default_factory=list)
    true: list[Tensor] = field(default_factory=list)  # (T, 3, H, W) uint8
    made: list[Tensor] = field(default_factory=list)  # the same, generated from text and image


def measure(pipeline: Pipeline, protocol: Protocol, on_clips: Callable[[int], None] = lambda done: None) -> Measurements:
    """Generate and measure the protocol's clips in every mode; `on_clips` is told how many are done."""
    measured = Measurements({mode: {} for mode in protocol.modes}, seconds=dict.fromkeys(protocol.modes, 0.0))
    for start in range(0, protocol.clips, protocol.batch_size):
        batch = _Batch(protocol, start)
        _measure_truth(pipeline, batch, measured)
        for mode in protocol.modes:
            _measure_mode(pipeline, batch, mode, measured)
        on_clips(len(measured.clips))
    return measured


class _Batch:
    """Some scenes, their true clips, and what generated clips of them are compared with."""

    def __init__(self, protocol: Protocol, start: int):
        indices = range(start, min(start + protocol.batch_size, protocol.clips))
        streams = [seeded(protocol.split, protocol.seed, i) for i in indices]
        size = protocol.size
        self.protocol, self.seed = protocol, protocol.seed + start
        self.clips = [sample_clip(rng, protocol.margin) for rng in streams]
        self.varied = [other_clip(c, rng) for c, rng in zip(self.clips, streams, strict=True)]
        self.true = render_batch(self.clips, **size)
        self.truths = [
            _Truth(c, frames, Candidates.of(c.scene, **size)) for c, frames in zip(self.clips, self.true, strict=True)
        ]

    def generate(self, pipeline: Pipeline, prompts: list[str], with_image: bool) -> Tensor:
        """Clips (B, T, 3, H, W), from the same noise in every mode."""
        image = self.true[:, 0] if with_image else None
        made = pipeline(prompts, image, seed=self.seed, **self.protocol.options)
        return made.float().cpu()

    def with_truths(self, made: Tensor) -> Iterator[tuple[_Truth, Tensor]]:
        return zip(self.truths, made, strict=True)


def _measure_truth(pipeline: Pipeline, batch: _Batch, measured: Measurements) -> None:
    measured.clips += batch.clips
    measured.true += to_uint8(batch.true).unbind(0)
    for truth, restored in batch.with_truths(_through_autoencoder(pipeline, batch.true)):
        _append(measured.ceiling, truth.likeness(restored) | {"psnr": float(psnr(restored, truth.true, 2.0))})
        _append(measured.frozen, truth.behaviour(truth.true[:1].expand_as(truth.true)))
        measured.chance.append(1 / len(truth.candidates.clips))


def _measure_mode(pipeline: Pipeline, batch: _Batch, mode: str, measured: Measurements) -> None:
    texts = [""] * len(batch.clips) if mode == "i2v" else [sentence(c) for c in batch.clips]
    started = time.monotonic()
    made = batch.generate(pipeline, texts, with_image=mode != "t2v")
    measured.seconds[mode] += time.monotonic() - started
    for truth, frames in batch.with_truths(made):
        values = truth.reading(frames) if mode == "t2v" else truth.likeness(frames) | truth.behaviour(frames)
        _append(measured.modes[mode], values)
    if mode == "ti2v":
        measured.made += to_uint8(made).unbind(0)
        made = batch.generate(pipeline, [sentence(c) for c in batch.varied], with_image=True)
        for (truth, frames), asked in zip(batch.with_truths(made), batch.varied, strict=True):
            found = truth.candidates.nearest(frames)
            _append(measured.modes[mode], {"varied_text_accuracy": float(looks_alike(found, asked))})


@torch.no_grad()
def _through_autoencoder(pipeline: Pipeline, frames: Tensor) -> Tensor:
    """Clips encoded and decoded: the ceiling of what the model can reach."""
    return pipeline.decode(pipeline.encode(frames.to(pipeline.device))).float().cpu()


@dataclass(frozen=True)
class _Truth:
    """A scene's true clip, its frames (T, 3, H, W), and the other clips that could follow from its first frame."""

    clip: Clip
    true: Tensor
    candidates: Candidates

    def likeness(self, made: Tensor) -> dict[str, float]:
        """SSIM of a clip (T, 3, H, W) to the true one."""
        similarity = ssim_map(made, self.true)
        first = first_region(self.clip.scene, *self.true.shape[-2:])
        return {
            "fff_ssim": float(similarity[0].mean()),
            "fff_ssim_sprite": float(similarity[0][first].mean()),
            "clip_ssim_sprite": float(similarity[:, self._swept()].mean()),
        }

    def behaviour(self, made: Tensor) -> dict[str, float]:
        """What moves in a clip (T, 3, H, W), where, and how far."""
        found = self.candidates.nearest(made)
        moves = self.clip.action != "still"
        choice = moves and len(self.clip.scene.sprites) > 1
        return {
            "action_accuracy": float(looks_alike(found, self.clip)),
            "named_sprite_accuracy": float(found.action != "still" and found.actor == self.clip.actor) if choice else math.nan,
            "motion": self._change(made) / self._change(self.true) if moves else math.nan,
            "background_drift": self._drift(made),
        }

    def reading(self, made: Tensor) -> dict[str, float]:
        """Whether a clip (T, 3, H, W) from text alone has the colour, shape and action of its sentence."""
        sprite = self.clip.scene.sprites[self.clip.actor]
        found = read_sprite(made, sprite.colour)
        return {
            "fff_ssim": self.likeness(made)["fff_ssim"],
            "colour_found": float(found is not None),
            "shape_found": float(found is not None and found.shape == sprite.shape),
            "action_found": float(found is not None and found.action == self.clip.action),
        }

    def _swept(self) -> Tensor:
        return swept_region(self.clip, len(self.true), *self.true.shape[-2:])

    def _change(self, frames: Tensor) -> float:
        """Mean change from the first frame to the last, in the region that the acting sprite sweeps."""
        return float((frames[-1] - frames[0]).abs()[:, self._swept()].mean())

    def _drift(self, frames: Tensor) -> float:
        """Mean change since the first frame where no candidate moves, on a scale of 0 to 1."""
        return float((frames - frames[:1]).abs()[..., ~self.candidates.touched].mean()) / 2


def _append(values: Values, new: dict[str, float]) -> None:
    for name, value in new.items():
        values.setdefault(name, []).append(value)
