"""Colours that do not drift."""

from __future__ import annotations

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_MAX_GAIN = 2.0
_SLOW = 0.02
_JUST_VISIBLE = 1.0  # in Lab: what spreads less is flat, and says nothing of a gain


def match_colours(frames: Tensor, picture: Tensor) -> Tensor:
    """Give the first of `frames` (T, 3, H, W) the picture's (1, 3, H, W) colours, and change the others alike; in [-1, 1].

    Reinhard et al., "Color Transfer between Images" (2001), in CIELAB: brightness is the mean of L, contrast its spread,
    casts are the means of a and b, and saturation their spreads. The first frame shows what the picture shows, so what sets
    the two apart is drift. What sets later frames apart from it is most often what happens in them, and stays; but drift is
    slow, so up to a fiftieth of their spreads is taken for it. A picture of another size is fine.
    """
    made, wanted = (rgb_to_lab((x.clamp(-1, 1) + 1) / 2) for x in (frames, picture.to(frames)))
    (means, spreads), (wanted_mean, wanted_spread) = _moments(made), _moments(wanted)
    gain = (wanted_spread / spreads[:1]).clamp(1 / _MAX_GAIN, _MAX_GAIN)
    later = (wanted_spread / (spreads * gain)).clamp(1 - _SLOW, 1 + _SLOW)
    return lab_to_rgb((made - means[:1]) * gain * later + wanted_mean) * 2 - 1


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel of (N, 3, H, W), as (N, 3, 1, 1)."""
    spreads, means = torch.std_mean(images, (2, 3), keepdim=True)
    return means, spreads.clamp(min=_JUST_VISIBLE)
