"""What can happen in a scene, and what can happen after it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .scene import ACTIONS, Clip, Scene, advanced, sample_scene

# What a sprite may become on its way: its radius in shorter sides, and how far from the border its centre stays.
_SIZES = (0.09, 0.26)
_BORDER = 0.15
_GAP = 0.03


def candidates(scene: Scene) -> list[Clip]:
    """Every clip that a sentence about the scene can name; "still" once, for it looks the same whichever sprite it is."""
    moving = [Clip(scene, actor, action) for actor in range(len(scene.sprites)) for action in ACTIONS if action != "still"]
    return [*moving, Clip(scene, 0, "still")]


def sample_chain(rng: np.random.Generator, stages: int, num_frames: int, height: int, width: int) -> list[Clip]:
    """Clips of which each begins where the one before ends; sprites stay inside, apart, and of a usual size."""

    def after(clip: Clip) -> Scene:
        return advanced(clip, num_frames - 1, height, width)

    clips: list[Clip] = []
    scene = sample_scene(rng)
    while len(clips) < stages:
        able = [clip for clip in candidates(scene) if _is_well_placed(after(clip), height, width)]
        clips.append(able[rng.integers(len(able))])  # "still" is always among them
        scene = after(clips[-1])
    return clips


def _is_well_placed(scene: Scene, height: int, width: int) -> bool:
    shorter = min(height, width)
    inside = all(_BORDER <= place <= 1 - _BORDER for s in scene.sprites for place in (s.x, s.y))
    usual = all(_SIZES[0] <= s.size <= _SIZES[1] for s in scene.sprites)
    apart = all(
        np.hypot((a.x - b.x) * width, (a.y - b.y) * height) / shorter > a.size + b.size + _GAP
        for a, b in pairwise(scene.sprites)
    )
    return inside and usual and apart
