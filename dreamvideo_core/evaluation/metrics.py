"""Metrics of pictures and clips in [-1, 1], and how sure a mean of them is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from kornia.metrics import ssim
from torch import Tensor

_WINDOW = 11


def ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of pictures (B, 3, H, W) at each pixel, channels averaged: (B, H, W).

    An 11 x 11 Gaussian window over each channel, values on a scale of 0 to 1.
    """
    if first.shape != second.shape:
        raise ValueError(f"frames have shape {tuple(first.shape)}, images {tuple(second.shape)}; they must be equal")
    first, second = ((x.clamp(-1, 1) + 1) / 2 for x in (first, second))
    return ssim(first, second, _WINDOW).mean(1)


def first_frame_ssim(first_frames: Tensor, images: Tensor) -> Tensor:
    """FFF_SSIM: mean structural similarity of frames and images (B, 3, H, W): a value per pair, (B,)."""
    return ssim_map(first_frames, images).mean((1, 2))


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of (B, ...) pictures or clips, a value per pair, (B,)."""
    return -10 * torch.log10((first - second).square().flatten(1).mean(1) / 4)


def bootstrap_interval(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, by drawing as many of them with replacement."""
    values = np.asarray(values)
    rows = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    low, high = np.percentile(values[rows].mean(1), (2.5, 97.5))
    return float(low), float(high)
