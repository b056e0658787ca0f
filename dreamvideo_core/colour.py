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
    casts are the means of a and b, and saturation their spreads. The first frame shows what the picture shows, so what sets
    the two apart is drift; what changes from frame to frame is not, and stays. A picture of another size is fine.
    """
    made, wanted = (rgb_to_lab((x.clamp(-1, 1) + 1) / 2) for x in (frames, picture.to(frames)))
    (mean, spread), (wanted_mean, wanted_spread) = _moments(made[:1]), _moments(wanted)
    gain = (wanted_spread / spread).clamp(1 / _MAX_GAIN, _MAX_GAIN)
    return lab_to_rgb((made - mean) * gain + wanted_mean) * 2 - 1


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each channel of (1, 3, H, W), as (1, 3, 1, 1)."""
    spread, mean = torch.std_mean(image, (2, 3), keepdim=True)
    return mean, spread.clamp(min=_JUST_VISIBLE)
