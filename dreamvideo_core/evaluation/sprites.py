"""True clips of the small world: which of a scene's clips is shown, and where its sprites are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..sprites import Clip, Scene, candidates, cover_batch, render_batch

_VISIBLE = 1 / 255


def looks_alike(first: Clip, second: Clip) -> bool:
    """Whether two clips of one scene look alike: "still" does, whichever sprite it names."""
    return first.action == second.action and (first.action == "still" or first.actor == second.actor)


def other_clip(clip: Clip, rng: np.random.Generator) -> Clip:
    """Another candidate of the same scene: the same picture, another sentence."""
    others = [c for c in candidates(clip.scene) if not looks_alike(c, clip)]
    return others[rng.integers(len(others))]


@dataclass(frozen=True)
class Candidates:
    """The possible clips of one scene, rendered: `frames` (N, T, 3, H, W); `touched` (H, W) is true where any changes."""

    clips: list[Clip]
    frames: Tensor
    touched: Tensor

    @classmethod
    def of(cls, scene: Scene, num_frames: int, height: int, width: int) -> Candidates:
        """Render all candidates of a scene."""
        clips = candidates(scene)
        frames = render_batch(clips, num_frames=num_frames, height=height, width=width)
        return cls(clips, frames, (frames - frames[:, :1]).abs().amax((0, 1, 2)) > _VISIBLE)

    def nearest(self, frames: Tensor) -> Clip:
        """The candidate with the least squared error to `frames` (T, 3, H, W), over pixels where any candidate changes."""
        errors = (self.frames - frames).square()[..., self.touched].mean((1, 2, 3))
        return self.clips[int(errors.argmin())]


def first_region(scene: Scene, height: int, width: int) -> Tensor:
    """True where frame 0 shows any sprite: (H, W)."""
    still = ["still"] * len(scene.sprites)
    return cover_batch(scene.sprites, still, num_frames=1, height=height, width=width).amax((0, 1)) > 0


def swept_region(clip: Clip, num_frames: int, height: int, width: int) -> Tensor:
    """True where the acting sprite is at any time: (H, W)."""
    actor = clip.scene.sprites[clip.actor]
    return cover_batch([actor], [clip.action], num_frames=num_frames, height=height, width=width).amax((0, 1)) > 0
