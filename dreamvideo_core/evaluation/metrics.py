"""Metrics of pictures in [-1, 1], and how sure a mean of values is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kornia.metrics import ssim
from torch import Tensor

_WINDOW = 11
_RESAMPLES = 2000


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of pictures (B, 3, H, W) at each pixel, channels averaged: (B, H, W).

    An 11 x 11 Gaussian window over each channel, values on a scale of 0 to 1. Unequal shapes raise ValueError.
    """
    if first.shape != second.shape:
        raise ValueError(f"first has shape {tuple(first.shape)}, second {tuple(second.shape)}; they must be equal")
    first, second = ((x.clamp(-1, 1) + 1) / 2 for x in (first, second))
    return ssim(first, second, _WINDOW).mean(1)


def first_frame_ssim(first_frames: Tensor, images: Tensor) -> Tensor:
    """FFF_SSIM: mean structural similarity of frames and images (B, 3, H, W): a value per pair, (B,)."""
    return ssim_map(first_frames, images).mean((1, 2))


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean: Wilson's for counts of right and wrong, by bootstrap for measures."""
    if set(values) <= {0.0, 1.0}:
        from scipy.stats import binomtest  # takes a second to import

        # A bootstrap of values that are all right would say that nothing can ever go wrong.
        low, high = binomtest(int(sum(values)), len(values)).proportion_ci(method="wilson")
        return float(low), float(high)
    return measure_interval(values)


def measure_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of a measure, by bootstrap; of measures that happen to be all 0 or 1 too."""
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    # Not scipy's bootstrap, whose argument for the generator has another name before 1.15; the numbers are the same.
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.asarray(values)[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)
