"""How wide layers convolve on a CPU, where torch's own convolutions are not the fastest: figures in benchmarks/NOTES.md."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from . import winograd

_WIDE = 256  # channels; with fewer torch's own are as fast
_FEW = 128  # places of outputs: taps are read, and little is computed with them
_MANY = 512  # places from which Winograd's algorithm saves something over time


def conv2d(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor | None:
    """(N, I, H, W) by taps (O, I, 3, 3), zeros around; None where torch's own convolution is at least as fast."""
    if not _wide(x, weight):
        return None
    if len(x) * x.shape[2] * x.shape[3] <= _FEW * stride**2:
        return _as_one_product(x, weight, bias, stride)
    return winograd.conv2d(x, weight, bias) if stride == 1 else None


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor | None:
    """(B, I, T, N) by taps (O, I, 3, 1), zeros before and after each clip; None as above."""
    if not _wide(x, weight):
        return None
    places = len(x) * x.shape[2] * x.shape[3]
    if places <= _FEW:
        return _as_one_product(x, weight, bias, stride=1)
    return winograd.conv_over_time(x, weight, bias) if places >= _MANY else None


def _wide(x: Tensor, weight: Tensor) -> bool:
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and min(weight.shape[:2]) >= _WIDE


def _as_one_product(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """All that an output place sees, gathered in a row, by all taps."""
    high, wide = weight.shape[2:]
    seen = F.pad(rearrange(x, "n c h w -> n h w c"), (0, 0, wide // 2, wide // 2, high // 2, high // 2))
    seen = seen.unfold(1, high, stride).unfold(2, wide, stride)
    return F.linear(seen.flatten(-3), weight.flatten(1), bias).permute(0, 3, 1, 2)
