"""Colours that stay where they began."""

from __future__ import annotations

from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

_MAX_GAIN = 2.0


def match_colours(frames: Tensor, reference: Tensor) -> Tensor:
    """Give every frame (T, 3, H, W) the mean and the spread of the reference's (1, 3, H, W) L, a and b; in [-1, 1].

    Reinhard et al., "Color Transfer between Images" (2001), in CIELAB: brightness is the mean of L, contrast its spread,
    casts and saturation are those of a and b. Frames of a size of their own are fine.
    """
    made, wanted = (rgb_to_lab((x.clamp(-1, 1) + 1) / 2) for x in (frames, reference.to(frames)))
    means, wanted_means = (x.mean((2, 3), keepdim=True) for x in (made, wanted))
    spreads, wanted_spreads = (x.std((2, 3), keepdim=True).clamp(min=1e-3) for x in (made, wanted))
    gains = (wanted_spreads / spreads).clamp(1 / _MAX_GAIN, _MAX_GAIN)
    return lab_to_rgb((made - means) * gains + wanted_means) * 2 - 1
