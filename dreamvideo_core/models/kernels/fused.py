"""Layers that are one kernel on a large enough NVIDIA GPU, by triton_kernels.py, and torch's own elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGE = 2**21  # elements of activations; with fewer, launching a kernel takes longer than running it
_LARGE_TOKENS = 2**19  # elements of what layer norms are given, likewise
_MOST_FRAMES = 64  # of a clip whose attention over time is a kernel's
_HALF = (torch.float16, torch.bfloat16)
_DTYPES = (*_HALF, torch.float32)
_AMPERE = (8, 0)  # what Triton needs at least


def laid_out(x: Tensor) -> Tensor:
    """Activations (N, C, H, W) channels last where the kernels take them, else as they are; layers keep that layout."""
    return x if kernels_for(x) is None else x.contiguous(memory_format=torch.channels_last)


def lay_out_weights(model: nn.Module, device: torch.device) -> None:
    """Put the weights of convolutions channels last, as `laid_out` does activations; else cuDNN copies them in every pass.

    Only in half precision: in float32 cuDNN's convolutions are slower that way.
    """
    if device.type != "cuda":
        return
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d)) and layer.weight.dtype in _HALF and _kernels(device, layer.weight.dtype):
            order = torch.channels_last if layer.weight.ndim == 4 else torch.channels_last_3d
            layer.weight.data = layer.weight.data.contiguous(memory_format=order)


def attends_in_place(x: Tensor) -> bool:
    """Whether attention over time can take activations (B, C, T, N) as they lie, by `attention_over_time`."""
    return x.shape[2] <= _MOST_FRAMES and _kernels_in_place(x) is not None


def attention_over_time(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of (B, T, N, heads x D) over T. It replaces a host's attention, which is slow for so few tokens."""
    return kernels_for(query, least=0).attention_over_time(query, key, value, heads)


def _kernels_in_place(x: Tensor) -> ModuleType | None:
    """The kernels for activations that `laid_out` has put channels last, however small they have become since."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return kernels_for(x, least=0) if channels_last and not x.is_contiguous() else None


def geglu(projected: Tensor) -> Tensor:
    """(..., 2 D), the values and then the gates, to values x GELU(gates), (..., D)."""
    kernels = kernels_for(projected)
    if kernels is not None:
        return kernels.geglu(projected)
    values, gates = projected.chunk(2, dim=-1)
    return F.gelu(gates).mul_(values)  # in place: this is the widest tensor of a transformer


Lend = Callable[[nn.Module, Tensor], AbstractContextManager[tuple[Tensor, Tensor]]]


def lend(layer: nn.Module, x: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
    """Weight and bias of a layer, for as long as they are used on `x`."""
    return nullcontext((layer.weight, layer.bias))


def group_norm(norm: nn.GroupNorm, x: Tensor, silu: bool = False) -> Tensor:
    """A layer's group norm of (N, C, ...), with SiLU behind it where `silu` is set."""
    kernels = _kernels_in_place(x)
    if kernels is None:
        normed = norm(x)
        return F.silu(normed, inplace=True) if silu else normed
    with norm.lend(norm, x) as (weight, bias):
        return kernels.group_norm(x, norm.num_groups, weight, bias, norm.eps, silu)


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """A layer's norm of tokens (..., C)."""
    kernels = kernels_for(x, _LARGE_TOKENS)
    if kernels is None:
        return norm(x)
    with norm.lend(norm, x) as (weight, bias):
        return kernels.layer_norm(x, weight, bias, norm.eps)


def add_layer_norm(norm: nn.LayerNorm, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of both (..., C), and its norm."""
    kernels = kernels_for(x, _LARGE_TOKENS)
    if kernels is None:
        total = x + added
        return total, norm(total)
    with norm.lend(norm, x) as (weight, bias):
        return kernels.add_layer_norm(x, added, weight, bias, norm.eps)


def kernels_for(x: Tensor, least: int = _LARGE) -> ModuleType | None:
    """The module `triton_kernels` for a tensor of at least so many elements on an NVIDIA GPU, without gradients, else None.

    torch.compile makes better kernels of the plain layers, for it sees what is around them.
    """
    if not x.is_cuda or x.numel() < least or x.dtype not in _DTYPES:
        return None
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return _kernels(x.device, x.dtype)


@cache
def _kernels(device: torch.device, dtype: torch.dtype) -> ModuleType | None:
    if torch.version.cuda is None or find_spec("triton") is None or torch.cuda.get_device_capability(device) < _AMPERE:
        return None
    try:
        from . import triton_kernels

        x, one = torch.ones(1, 1, 2, 2, device=device, dtype=dtype), torch.ones(1, device=device, dtype=dtype)
        triton_kernels.group_norm(x, 1, one, one, eps=1.0, silu=True)
        triton_kernels.geglu(x)
        triton_kernels.layer_norm(x, one.repeat(2), one.repeat(2), eps=1.0)
        triton_kernels.add_layer_norm(x, x, one.repeat(2), one.repeat(2), eps=1.0)
        triton_kernels.attention_over_time(x, x, x, heads=1)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # compiling is done on the user's machine, and takes a C compiler there
        logging.warning("DreamVideo: Triton does not work here, so torch's own, slower layers are used: %s", error)
        return None
    return triton_kernels
