"""How wide layers convolve in float32 on a CPU, where torch's own convolutions are not the fastest (benchmarks/NOTES.md)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from . import winograd

_LEAST_CHANNELS = 256  # with fewer torch's own are as fast
_MOST_FOR_IM2COL = 128  # outputs of a channel; with so few, reading the taps is most of the time
_LEAST_OVER_TIME = 512  # outputs of a channel from which Winograd's algorithm is faster over time


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor | None:
    """(N, I, H, W), taps (O, I, 3, 3), padding 1, to (N, O, H', W'); None where torch's own is at least as fast."""
    if bias is None or not _eligible(x, weight):
        return None
    if _places(x) <= _MOST_FOR_IM2COL * stride**2:
        return _im2col(x, weight, bias, stride)
    return winograd.conv2d(x, weight, bias) if stride == 1 else None


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """(B, I, T, N), taps (O, I, 3, 1), padding 1 over T, to (B, O, T, N); None where torch's own is at least as fast."""
    if bias is None or not _eligible(x, weight):
        return None
    if _places(x) <= _MOST_FOR_IM2COL:
        return _im2col(x, weight, bias, stride=1)
    frames = x.shape[2]
    tiles_are_full = frames >= 3 * math.ceil(frames / 4)  # but for a quarter
    return winograd.conv_over_time(x, weight, bias) if tiles_are_full and _places(x) >= _LEAST_OVER_TIME else None


def _eligible(x: Tensor, weight: Tensor) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and min(weight.shape[:2]) >= _LEAST_CHANNELS


def _places(x: Tensor) -> int:
    return len(x) * x.shape[2] * x.shape[3]


def _im2col(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Each output's neighbourhood as a row, times all taps at once; a 3 x 3 or 3 x 1 kernel's."""
    height, width = weight.shape[2:]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, width // 2, width // 2, height // 2, height // 2))
    neighbourhoods = padded.unfold(1, height, stride).unfold(2, width, stride)
    return F.linear(neighbourhoods.flatten(-3), weight.flatten(1), bias).permute(0, 3, 1, 2)
