"""Reading a sprite of a known colour out of the pixels of a clip whose scene nobody knows (text to video).

By rendering: the pixels of the colour are compared with what every shape, size and action would cover.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from ..sprites import ACTIONS, COLOURS, SHAPES, Background, Clip, Scene, Sprite, cover_batch

# Backgrounds are muted: this far from a sprite's colour (Euclidean, channels 0 to 1) lies no background.
_TOLERANCE = 0.3
# A sprite smaller than this share of the frame is none.
_LEAST_SHARE = 0.008
_SIZES = tuple(0.08 + 0.01 * i for i in range(16))
_NOWHERE = Background("plain", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((1.0, 0.0, 0.0),))


@dataclass(frozen=True)
class Reading:
    """The shape and the action that cover the coloured pixels best."""

    shape: str
    action: str


def read_sprite(frames: Tensor, colour: str) -> Reading | None:
    """The sprite of `colour` in a clip (T, 3, H, W) in [-1, 1]; None where the first frame shows none."""
    seen = _pixels_of(frames, colour)
    if seen[0].mean() < _LEAST_SHARE:
        return None
    sprite = _fit(seen[0], colour)
    clips = [Clip(Scene(_NOWHERE, (sprite,)), 0, action) for action in ACTIONS]
    overlaps = _overlap(cover_batch(clips, num_frames=len(seen), height=seen.shape[1], width=seen.shape[2]), seen)
    return Reading(sprite.shape, clips[int(overlaps.mean(1).argmax())].action)


def _pixels_of(frames: Tensor, colour: str) -> Tensor:
    """(T, H, W), one where a pixel is near the colour and nearer to it than to the others, else zero."""
    palette = torch.tensor(list(COLOURS.values()), device=frames.device)
    distances = ((frames[:, None] + 1) / 2 - palette[:, :, None, None]).norm(dim=2)
    nearest, index = distances.min(1)
    return ((index == list(COLOURS).index(colour)) & (nearest < _TOLERANCE)).float().cpu()


def _fit(seen: Tensor, colour: str) -> Sprite:
    """The sprite that covers the pixels `seen` (H, W) best, its coverage's centroid on theirs."""
    height, width = seen.shape
    kinds = list(product(SHAPES, _SIZES))
    centred = [Sprite(shape, colour, size, 0.5, 0.5) for shape, size in kinds]
    shifts = _centroids(seen[None]) - _centroids(_still(centred, height, width))
    moved = [
        Sprite(shape, colour, size, 0.5 + float(x), 0.5 + float(y)) for (shape, size), (x, y) in zip(kinds, shifts, strict=True)
    ]
    return moved[int(_overlap(_still(moved, height, width), seen).argmax())]


def _still(sprites: list[Sprite], height: int, width: int) -> Tensor:
    """(N, H, W)."""
    clips = [Clip(Scene(_NOWHERE, (sprite,)), 0, "still") for sprite in sprites]
    return cover_batch(clips, num_frames=1, height=height, width=width)[:, 0]


def _centroids(cover: Tensor) -> Tensor:
    """The centres of (N, H, W) as fractions of width and height: (N, 2)."""
    _, height, width = cover.shape
    mass = cover.sum((1, 2))
    x = (cover.sum(1) * (torch.arange(width) + 0.5) / width).sum(1) / mass
    y = (cover.sum(2) * (torch.arange(height) + 0.5) / height).sum(1) / mass
    return torch.stack([x, y], 1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of soft coverages (..., H, W), broadcast: (...)."""
    return torch.minimum(first, second).sum((-1, -2)) / torch.maximum(first, second).sum((-1, -2))
