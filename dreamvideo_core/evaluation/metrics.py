"""Structural similarity of pictures, and confidence intervals of means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from kornia.metrics import ssim
from torch import Tensor

from ..common.checks import InputError

_WINDOW = 11
_RESAMPLES = 2000


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """SSIM of pictures (B, 3, H, W) in [-1, 1] at each pixel, averaged over channels: (B, H, W).

    Wang et al. (2004) with an 11 x 11 Gaussian window, after scaling to [0, 1]. Raises `InputError` for unequal shapes.
    """
    if first.shape != second.shape:
        raise InputError(f"first has shape {tuple(first.shape)}, second {tuple(second.shape)}; they must be equal")
    first, second = ((x.clamp(-1, 1) + 1) / 2 for x in (first, second))
    return ssim(first, second, _WINDOW).mean(1)


def first_frame_ssim(first_frames: Tensor, images: Tensor) -> Tensor:
    """FFF_SSIM, the paper's first-frame fidelity: mean SSIM of frames and images (B, 3, H, W), one value per pair (B,)."""
    return ssim_map(first_frames, images).mean((1, 2))


def motion(frames: Tensor) -> float:
    """How much changes from one frame to the next: the mean difference of clips (T, 3, H, W), values on a scale of 0 to 1."""
    return float(frames.diff(dim=0).abs().mean()) / 2 if len(frames) > 1 else 0.0


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean: Wilson's for values of 0 and 1 only, by bootstrap for others."""
    if set(values) <= {0.0, 1.0}:
        from scipy.stats import binomtest  # takes a second to import

        # If all values are 1, a bootstrap would give an interval without width.
        low, high = binomtest(int(sum(values)), len(values)).proportion_ci(method="wilson")
        return float(low), float(high)
    return measure_interval(values)


def measure_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean by bootstrap, for measures that are not counts even if all are 0 or 1."""
    if min(values) == max(values):
        return float(values[0]), float(values[0])
    # scipy's bootstrap gives the same numbers, but renamed its argument for the generator in 1.15.
    drawn = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
    low, high = np.percentile(np.asarray(values)[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)
