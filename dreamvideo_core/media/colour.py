"""Colour matching against drift along a chain."""

from __future__ import annotations

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_MAX_GAIN = 2.0
_FRAME_DRIFT = 0.02  # how much of a later frame's spread is taken for drift
_LEAST_SPREAD = 1.0  # in CIELAB: a channel that varies less is flat, and gives no gain


def match_colours(frames: Tensor, picture: Tensor) -> Tensor:
    """`frames` (T, 3, H, W) with the colours of `picture` (1, 3, H, W), both in [-1, 1]; the sizes may differ.

    Reinhard et al., "Color Transfer between Images" (2001), in CIELAB: mean and standard deviation of L are brightness and
    contrast, those of a and b are colour cast and saturation. The first frame shows the picture, so their whole difference
    is drift: its shift and gain are applied to all frames. Later frames also differ by what happens in them, so only up to
    2 % of their own spread is corrected beyond that.
    """
    lab, target = (rgb_to_lab((x.clamp(-1, 1) + 1) / 2) for x in (frames, picture.to(frames)))
    (means, spreads), (target_mean, target_spread) = _moments(lab), _moments(target)
    gain = (target_spread / spreads[:1]).clamp(1 / _MAX_GAIN, _MAX_GAIN)
    frame_gain = (target_spread / (spreads * gain)).clamp(1 - _FRAME_DRIFT, 1 + _FRAME_DRIFT)
    return lab_to_rgb((lab - means[:1]) * gain * frame_gain + target_mean) * 2 - 1


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of (N, 3, H, W), as (N, 3, 1, 1)."""
    spreads, means = torch.std_mean(images, (2, 3), keepdim=True)
    return means, spreads.clamp(min=_LEAST_SPREAD)
