"""The possible clips of a scene, and chains of clips."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .scene import ACTIONS, Clip, Scene, advanced, sample_scene

# Limits for sprites along a chain.
_SIZES = (0.09, 0.26)  # radii, as shares of the shorter side
_BORDER = 0.15  # the least distance of centres from the border, as a share of each side
_GAP = 0.03  # the least distance between sprites, as a share of the shorter side


def candidates(scene: Scene) -> list[Clip]:
    """Every clip that a sentence about the scene can describe. "still" is there once: it looks the same for any sprite."""
    moving = [Clip(scene, actor, action) for actor in range(len(scene.sprites)) for action in ACTIONS if action != "still"]
    return [*moving, Clip(scene, 0, "still")]


def sample_chain(rng: np.random.Generator, stages: int, num_frames: int, height: int, width: int) -> list[Clip]:
    """Clips that each begin where the one before ends; sprites stay inside, apart, and of usual size."""

    def after(clip: Clip) -> Scene:
        return advanced(clip, num_frames - 1, height, width)

    clips: list[Clip] = []
    scene = sample_scene(rng)
    while len(clips) < stages:
        allowed = [clip for clip in candidates(scene) if _is_allowed(after(clip), height, width)]
        clips.append(allowed[rng.integers(len(allowed))])  # "still" is always allowed
        scene = after(clips[-1])
    return clips


def _is_allowed(scene: Scene, height: int, width: int) -> bool:
    shorter = min(height, width)
    inside = all(_BORDER <= position <= 1 - _BORDER for s in scene.sprites for position in (s.x, s.y))
    usual = all(_SIZES[0] <= s.size <= _SIZES[1] for s in scene.sprites)
    apart = all(
        np.hypot((a.x - b.x) * width, (a.y - b.y) * height) / shorter > a.size + b.size + _GAP
        for a, b in pairwise(scene.sprites)
    )
    return inside and usual and apart
