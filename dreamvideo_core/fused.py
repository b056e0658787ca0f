"""Where the kernels of kernels.py stand in for torch's own layers, and the layout in memory that they are for."""

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

_LARGE = 2**20  # elements; smaller activations keep a GPU waiting whatever is done with them
_AMPERE = (8, 0)  # what Triton needs at least


def laid_out(x: Tensor) -> Tensor:
    """The first activations (N, C, H, W) in the layout that every layer then keeps: channels last on a GPU, if large."""
    if not x.is_cuda or x.numel() < _LARGE or torch.is_grad_enabled():
        return x
    return x.contiguous(memory_format=torch.channels_last)


def kernels_for(x: Tensor) -> ModuleType | None:
    """The module `kernels` for a tensor on an NVIDIA GPU of which no gradient is asked, else None.

    torch.compile makes better kernels of the plain layers, for it sees what is around them.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    return _kernels(x.device)


@cache
def _kernels(device: torch.device) -> ModuleType | None:
    if torch.version.cuda is None or find_spec("triton") is None or torch.cuda.get_device_capability(device) < _AMPERE:
        return None
    try:
        from . import kernels

        x, one = torch.ones(1, 1, 2, 1, device=device), torch.ones(1, device=device)
        kernels.group_norm(x, 1, one, one, eps=1.0, silu=True)
    except Exception as error:  # compiling is done on the user's machine, and takes a C compiler there
        logging.warning("DreamVideo: Triton does not work here, so torch's own, slower layers are used: %s", error)
        return None
    return kernels


Lend = Callable[[nn.Module, Tensor], AbstractContextManager[tuple[Tensor, Tensor]]]


def lend(layer: nn.Module, x: Tensor) -> AbstractContextManager[tuple[Tensor, Tensor]]:
    """Weight and bias of a layer, for as long as they are used on `x`."""
    return nullcontext((layer.weight, layer.bias))


@cache
def with_silu(group_norm: type[nn.Module], lend: Lend) -> type[nn.Module]:
    """A GroupNorm, torch's or a host's, that SiLU can follow, and that is a kernel where it can be."""

    class GroupNorm(group_norm):
        silu = False

        def forward(self, x: Tensor) -> Tensor:
            kernels = kernels_for(x) if x.is_contiguous(memory_format=torch.channels_last) else None
            if kernels is None:
                normed = super().forward(x)
                return F.silu(normed, inplace=True) if self.silu else normed
            with lend(self, x) as (weight, bias):
                return kernels.group_norm(x, self.num_groups, weight, bias, self.eps, self.silu)

    return GroupNorm
