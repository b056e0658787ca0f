"""Colours that do not drift."""

from __future__ import annotations

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_MAX_GAIN = 2.0
_JUST_VISIBLE = 1.0  # in Lab: what spreads less is flat, and says nothing of a gain


def match_colours(frames: Tensor, picture: Tensor) -> Tensor:
    """Give the first of `frames` (T, 3, H, W) the picture's (1, 3, H, W) colours, and change the others alike; in [-1, 1].

    Reinhard et al., "Color Transfer between Images" (2001), in CIELAB: brightness is the mean of L, contrast its spread,
    casts are the means of a and b. Their spreads alone would not keep saturation, the mean chroma, where stains take the
    place of shapes: a and b are scaled to it at last. The first frame shows what the picture shows, so what sets the two
    apart is drift; what changes from frame to frame is not, and stays. A picture of another size is fine.
    """
    made, wanted = (rgb_to_lab((x.clamp(-1, 1) + 1) / 2) for x in (frames, picture.to(frames)))
    means, wanted_means = (x[:1].mean((2, 3), keepdim=True) for x in (made, wanted))
    spreads, wanted_spreads = (x[:1].std((2, 3), keepdim=True) for x in (made, wanted))
    matched = (made - means) * _gain(spreads, wanted_spreads) + wanted_means
    lightness, tints = matched.tensor_split([1], dim=1)
    tints = tints * _gain(_chroma(tints[:1]), _chroma(wanted[:, 1:]))
    return lab_to_rgb(torch.cat([lightness, tints], dim=1)) * 2 - 1


def _gain(found: Tensor, wanted: Tensor) -> Tensor:
    return (wanted.clamp(min=_JUST_VISIBLE) / found.clamp(min=_JUST_VISIBLE)).clamp(1 / _MAX_GAIN, _MAX_GAIN)


def _chroma(tints: Tensor) -> Tensor:
    """The mean length of (a, b), of (1, 2, H, W): (1, 1, 1, 1)."""
    return tints.norm(dim=1, keepdim=True).mean((2, 3), keepdim=True)
