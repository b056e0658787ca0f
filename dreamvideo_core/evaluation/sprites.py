"""Counting in the small world: which of all true clips of a scene a generated clip is nearest to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..sprites import ACTIONS, Clip, Scene, render_batch


def candidates(scene: Scene) -> list[Clip]:
    """Every clip that a sentence about the scene can name; "still" once, for it looks the same whichever sprite it is."""
    moving = [Clip(scene, actor, action) for actor in range(len(scene.sprites)) for action in ACTIONS if action != "still"]
    return [*moving, Clip(scene, 0, "still")]


def nearest_clip(frames: Tensor, scene: Scene) -> Clip:
    """The candidate nearest to `frames` (T, 3, H, W) in [-1, 1], by squared error where any candidate moves."""
    clips = candidates(scene)
    true = render_batch(clips, num_frames=frames.shape[0], height=frames.shape[-2], width=frames.shape[-1])
    touched = (true - true[:, :1]).abs().amax((0, 1, 2)) > 1 / 255
    errors = (true - frames.to(true)).square()[..., touched].mean((1, 2, 3))
    return clips[int(errors.argmin())]


def action_accuracy(frames: Tensor, clips: Sequence[Clip]) -> float:
    """The share of generated clips (N, T, 3, H, W) that are nearest to the clip their sentence named."""
    right = [_same(nearest_clip(f, c.scene), c) for f, c in zip(frames, clips, strict=True)]
    return float(torch.tensor(right, dtype=torch.float32).mean())


def _same(found: Clip, named: Clip) -> bool:
    return found.action == named.action and (named.action == "still" or found.actor == named.actor)
