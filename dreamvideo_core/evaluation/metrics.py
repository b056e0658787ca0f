"""Metrics of the paper's evaluation."""

from __future__ import annotations

from kornia.metrics import ssim
from torch import Tensor

_WINDOW = 11


def first_frame_ssim(first_frames: Tensor, images: Tensor) -> Tensor:
    """FFF_SSIM: mean structural similarity of frames and images (B, 3, H, W) in [-1, 1]: a value per pair, (B,).

    An 11 x 11 Gaussian window over each channel, values on a scale of 0 to 1.
    """
    if first_frames.shape != images.shape:
        raise ValueError(f"frames have shape {tuple(first_frames.shape)}, images {tuple(images.shape)}; they must be equal")
    first, second = ((x.clamp(-1, 1) + 1) / 2 for x in (first_frames, images))
    return ssim(first, second, _WINDOW).mean((1, 2, 3))
