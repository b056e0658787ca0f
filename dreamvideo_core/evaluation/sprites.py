"""The truth of the small world: which clip of a scene is seen, and where its sprites are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..sprites import Clip, Scene, candidates, cover_batch, render_batch

_VISIBLE = 1 / 255


def same(first: Clip, second: Clip) -> bool:
    """Whether two clips of one scene look alike."""
    return first.action == second.action and (first.action == "still" or first.actor == second.actor)


def other_clip(clip: Clip, rng: np.random.Generator) -> Clip:
    """Another candidate of the same scene: the same picture, another sentence."""
    others = [c for c in candidates(clip.scene) if not same(c, clip)]
    return others[rng.integers(len(others))]


@dataclass(frozen=True)
class Candidates:
    """The candidates of one scene, rendered: `frames` (N, T, 3, H, W), `touched` (H, W) where any of them moves."""

    clips: list[Clip]
    frames: Tensor
    touched: Tensor

    @classmethod
    def of(cls, scene: Scene, num_frames: int, height: int, width: int) -> Candidates:
        clips = candidates(scene)
        frames = render_batch(clips, num_frames=num_frames, height=height, width=width)
        return cls(clips, frames, (frames - frames[:, :1]).abs().amax((0, 1, 2)) > _VISIBLE)

    def nearest(self, frames: Tensor) -> Clip:
        """The candidate nearest to `frames` (T, 3, H, W), by squared error where any candidate moves."""
        errors = (self.frames - frames).square()[..., self.touched].mean((1, 2, 3))
        return self.clips[int(errors.argmin())]


def first_region(scene: Scene, height: int, width: int) -> Tensor:
    """Where frame 0 shows any sprite, (H, W), boolean."""
    still = ["still"] * len(scene.sprites)
    return cover_batch(scene.sprites, still, num_frames=1, height=height, width=width).amax((0, 1)) > 0


def swept_region(clip: Clip, num_frames: int, height: int, width: int) -> Tensor:
    """Where the acting sprite is at any time, (H, W), boolean."""
    actor = clip.scene.sprites[clip.actor]
    return cover_batch([actor], [clip.action], num_frames=num_frames, height=height, width=width).amax((0, 1)) > 0
