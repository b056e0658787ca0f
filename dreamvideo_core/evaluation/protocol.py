"""The small world's protocol: scenes of the test split in every mode, each clip measured against the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..images import to_uint8
from ..pipeline import Pipeline
from ..sprites import Clip, render_batch, sample_clip, sentence
from ..sprites.scene import seeded
from .metrics import psnr, ssim_map
from .reading import read_sprite
from .sprites import Candidates, first_region, other_clip, same, swept_region

MODES = ("t2v", "i2v", "ti2v")


@dataclass(frozen=True)
class Protocol:
    """What is generated. Clips of a batch share one draw of noise, so `batch_size` is part of the result."""

    clips: int
    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    text_scale: float
    image_scale: float
    order: str = "text_first"
    batch_size: int = 4
    modes: tuple[str, ...] = MODES


Values = dict[str, list[float]]


@dataclass
class Measured:
    """Values per clip and mode (NaN where a measure does not apply), ceilings, and the frames as bytes."""

    clips: list[Clip] = field(default_factory=list)
    modes: dict[str, Values] = field(default_factory=lambda: {mode: {} for mode in MODES})
    ceilings: Values = field(default_factory=dict)
    chance: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MODES, 0.0))
    true: list[Tensor] = field(default_factory=list)
    made: list[Tensor] = field(default_factory=list)  # from text and image

    def add(self, mode: str, values: dict[str, float]) -> None:
        _append(self.modes[mode], values)


def measure(pipeline: Pipeline, protocol: Protocol, on_clips: Callable[[int], None] = lambda done: None) -> Measured:
    """Generate and measure `protocol.clips` clips of the test split in every mode; `on_clips` hears how many are done."""
    measured = Measured()
    for start in range(0, protocol.clips, protocol.batch_size):
        _measure_batch(pipeline, protocol, start, measured)
        on_clips(len(measured.clips))
    return measured


def _measure_batch(pipeline: Pipeline, protocol: Protocol, start: int, measured: Measured) -> None:
    indices = range(start, min(start + protocol.batch_size, protocol.clips))
    streams = [seeded("test", protocol.seed, i) for i in indices]
    clips = [sample_clip(rng) for rng in streams]
    size = {"num_frames": protocol.num_frames, "height": protocol.height, "width": protocol.width}
    true = render_batch(clips, **size)
    judges = [_Judge(c, frames, Candidates.of(c.scene, **size)) for c, frames in zip(clips, true, strict=True)]
    for judge, restored in zip(judges, _through_autoencoder(pipeline, true), strict=True):
        _append(measured.ceilings, judge.likeness(restored) | {"psnr": float(psnr(restored[None], judge.true[None]))})
        measured.chance.append(1 / len(judge.candidates.clips))
    generate = _Generator(pipeline, protocol, start)
    for mode in protocol.modes:
        texts = [""] * len(clips) if mode == "i2v" else [sentence(c) for c in clips]
        started = time.monotonic()
        made = generate(texts, None if mode == "t2v" else true[:, 0])
        measured.seconds[mode] += time.monotonic() - started
        for judge, frames in zip(judges, made, strict=True):
            measured.add(mode, judge.text_alone(frames) if mode == "t2v" else judge.likeness(frames) | judge.behaviour(frames))
    if "ti2v" in protocol.modes:
        varied = [other_clip(c, rng) for c, rng in zip(clips, streams, strict=True)]
        made_varied = generate([sentence(c) for c in varied], true[:, 0])
        for judge, frames, asked in zip(judges, made_varied, varied, strict=True):
            measured.add("ti2v", {"varied_text_accuracy": float(same(judge.candidates.nearest(frames), asked))})
        measured.made += to_uint8(made).unbind(0)
    measured.clips += clips
    measured.true += to_uint8(true).unbind(0)


class _Generator:
    """Clips for one batch of scenes; every mode starts from the same noise."""

    def __init__(self, pipeline: Pipeline, protocol: Protocol, start: int):
        self.pipeline, self.protocol, self.start = pipeline, protocol, start

    def __call__(self, prompts: list[str], images: Tensor | None) -> Tensor:
        p = self.protocol
        return (
            self.pipeline(
                prompts,
                images,
                num_frames=p.num_frames,
                height=p.height,
                width=p.width,
                steps=p.steps,
                text_scale=p.text_scale,
                image_scale=p.image_scale,
                order=p.order,
                seed=p.seed + self.start,
            )
            .float()
            .cpu()
        )


@torch.no_grad()
def _through_autoencoder(pipeline: Pipeline, frames: Tensor) -> Tensor:
    """What the autoencoder alone makes of clips: the ceiling of every clip that it decodes."""
    return pipeline.decode(pipeline.encode(frames.to(pipeline.device))).float().cpu()


@dataclass(frozen=True)
class _Judge:
    """One scene's truth: what its clip looks like, and what else might have happened."""

    clip: Clip
    true: Tensor
    candidates: Candidates

    def likeness(self, made: Tensor) -> dict[str, float]:
        """Structural similarity of a clip (T, 3, H, W) to the true one."""
        size = self.true.shape[-2:]
        similarity = ssim_map(made, self.true)
        first, swept = first_region(self.clip, *size), swept_region(self.clip, len(self.true), *size)
        return {
            "fff_ssim": float(similarity[0].mean()),
            "fff_ssim_sprite": float(similarity[0][first].mean()),
            "clip_ssim_sprite": float(similarity[:, swept].mean()),
        }

    def behaviour(self, made: Tensor) -> dict[str, float]:
        """What moves in a clip (T, 3, H, W), where, and how far."""
        found = self.candidates.nearest(made)
        moves = self.clip.action != "still"
        choice = moves and len(self.clip.scene.sprites) > 1
        return {
            "action_accuracy": float(same(found, self.clip)),
            "named_sprite_accuracy": float(found.action != "still" and found.actor == self.clip.actor) if choice else math.nan,
            "motion": self._change(made) / self._change(self.true) if moves else math.nan,
            "background_drift": self._drift(made),
        }

    def text_alone(self, made: Tensor) -> dict[str, float]:
        """Of a clip (T, 3, H, W) that saw no picture: whether colour, shape and action are those its sentence names."""
        sprite = self.clip.scene.sprites[self.clip.actor]
        found = read_sprite(made, sprite.colour)
        return {
            "fff_ssim": self.likeness(made)["fff_ssim"],
            "colour_accuracy": float(found is not None),
            "shape_accuracy": float(found is not None and found.shape == sprite.shape),
            "action_accuracy": float(found is not None and found.action == self.clip.action),
        }

    def _change(self, frames: Tensor) -> float:
        """Mean change from first to last frame where the named sprite is at any time."""
        swept = swept_region(self.clip, len(self.true), *self.true.shape[-2:])
        return float((frames[-1] - frames[0]).abs()[:, swept].mean())

    def _drift(self, frames: Tensor) -> float:
        """Mean change since the first frame where no candidate moves, values on a scale of 0 to 1."""
        still = ~self.candidates.touched
        return float((frames - frames[:1]).abs()[..., still].mean()) / 2


def _append(values: Values, new: dict[str, float]) -> None:
    for name, value in new.items():
        values.setdefault(name, []).append(value)
