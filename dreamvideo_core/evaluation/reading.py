"""Finding a sprite of known colour in a clip, with its shape and action.

This needs no scene, so it works for text to video and for later stages of a chain. The pixels of the colour are compared with
the regions that every shape, size and action would cover when rendered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from ..sprites import ACTIONS, COLOURS, SHAPES, Clip, Sprite, cover_batch

_TOLERANCE = 0.2  # Euclidean distance of colours, channels 0 to 1; backgrounds come as near as 0.207 to pink
_LEAST_AREA = 0.008  # as a share of the shorter side's square; the smallest star covers 0.0196
_SIZES = tuple(0.08 + 0.01 * i for i in range(16))


@dataclass(frozen=True)
class Reading:
    """The shape and the action that cover the coloured pixels best."""

    shape: str
    action: str


def read_sprite(frames: Tensor, colour: str) -> Reading | None:
    """The sprite of `colour` in a clip (T, 3, H, W) in [-1, 1], or None if the first frame shows none."""
    seen = _pixels_of(frames, colour)
    num_frames, height, width = seen.shape
    if seen[0].sum() < _LEAST_AREA * min(height, width) ** 2:
        return None
    sprite = _fit(seen[0], colour)
    cover = cover_batch([sprite] * len(ACTIONS), list(ACTIONS), num_frames=num_frames, height=height, width=width)
    return Reading(sprite.shape, list(ACTIONS)[int(_overlap(cover, seen).argmax())])


def is_done(clip: Clip, frames: Tensor) -> bool:
    """Whether in `frames` (T, 3, H, W) the acting sprite of `clip` does its action and the others rest, wherever they are."""
    readings = [read_sprite(frames, sprite.colour) for sprite in clip.scene.sprites]
    asked = [clip.action if number == clip.actor else "still" for number in range(len(readings))]
    return all(found is not None and found.action == action for found, action in zip(readings, asked, strict=True))


def _pixels_of(frames: Tensor, colour: str) -> Tensor:
    """(T, H, W): 1 if a pixel is near the colour, and nearer to it than to the others, else 0."""
    palette = torch.tensor(list(COLOURS.values()))[:, :, None, None]
    # Not `norm`, which takes twenty times as long over an axis that is not the last.
    nearest, index = ((frames[:, None] + 1) / 2 - palette).square().sum(2).sqrt().min(1)
    return ((index == list(COLOURS).index(colour)) & (nearest < _TOLERANCE)).float()


def _fit(seen: Tensor, colour: str) -> Sprite:
    """The sprite that covers the pixels `seen` (H, W) best, placed so that its centroid is theirs."""
    centred = [Sprite(shape, colour, size, 0.5, 0.5) for shape, size in product(SHAPES, _SIZES)]
    shifts = _centroids(seen[None]) - _centroids(_cover(centred, seen))
    moved = [replace(s, x=s.x + float(x), y=s.y + float(y)) for s, (x, y) in zip(centred, shifts, strict=True)]
    return moved[int(_overlap(_cover(moved, seen)[:, None], seen[None]).argmax())]


def _cover(sprites: list[Sprite], like: Tensor) -> Tensor:
    """Coverage in frame 0 at the size of `like` (H, W): (N, H, W)."""
    height, width = like.shape
    return cover_batch(sprites, ["still"] * len(sprites), num_frames=1, height=height, width=width)[:, 0]


def _centroids(cover: Tensor) -> Tensor:
    """The centroids of (N, H, W) as fractions of width and height: (N, 2)."""
    _, height, width = cover.shape
    mass = cover.sum((1, 2))
    x = (cover.sum(1) * (torch.arange(width) + 0.5) / width).sum(1) / mass
    y = (cover.sum(2) * (torch.arange(height) + 0.5) / height).sum(1) / mass
    return torch.stack([x, y], 1)


def _overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of coverages in [0, 1], (N, T, H, W) and (T, H, W), over all frames: (N,)."""
    return torch.minimum(first, second).sum((1, 2, 3)) / torch.maximum(first, second).sum((1, 2, 3))
