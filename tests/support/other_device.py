"""A device that is neither a CPU nor CUDA and has no float64, as Apple's GPUs: torch's meta device, with that rule.

It computes shapes, types and devices, and no values: what is copied back is zero, and what is asked of a tensor is zero too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")


class NoFloat64(TorchDispatchMode):
    """Within it, float64 on `DEVICE` raises what torch says on a Mac, and tensors come back from there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device == DEVICE:
            device = kwargs.get("device") or DEVICE
            if torch.device(device) != DEVICE:
                return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype, device=device)
        if func is torch.ops.aten.copy_.default and args[1].device == DEVICE and args[0].device != DEVICE:
            return args[0].zero_()
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device == DEVICE:
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is torch.ops.aten.nonzero.default and args[0].device == DEVICE:
            return torch.empty(0, args[0].ndim, dtype=torch.int64, device=DEVICE)
        found = func(*args, **kwargs)
        for tensor in tree_leaves((args, kwargs, found)):
            if isinstance(tensor, Tensor) and tensor.device == DEVICE and tensor.dtype == torch.float64:
                raise TypeError(
                    f"{func}: Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
                )
        return found
