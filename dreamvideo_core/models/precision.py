"""Which precision a model computes in where a person has not chosen one."""

from __future__ import annotations

import torch

# Parameters above which half precision is chosen. Smaller models are quick in float32, and keep its bits.
LARGE = 200_000_000
_AMPERE = (8, 0)  # NVIDIA's first GPUs that compute in bfloat16
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def best_dtype(device: torch.device, parameters: int) -> torch.dtype:
    """The precision for a model of so many parameters: bfloat16 where it is large and the device computes in it.

    Else float16 for a large model on a GPU, and float32 for small models and on other CPUs.
    """
    if parameters <= LARGE:
        return torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if cpu_computes_in_bfloat16() else torch.float32
    return torch.bfloat16 if _gpu_computes_in_bfloat16(device) else torch.float16


def cpu_computes_in_bfloat16() -> bool:
    """Whether this CPU has instructions for it (AVX512_BF16 or AMX). Others convert to float32 and back, which is slow."""
    if not torch.backends.mkldnn.is_available():  # whose kernels use these instructions
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in _INSTRUCTIONS)
    # Before torch 2.11 only functions without a promise told; the oldest have none of them.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check is not None)


def _gpu_computes_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= _AMPERE
    try:
        torch.empty(1, device=device, dtype=torch.bfloat16)
    except (TypeError, RuntimeError):  # as torch says it on a Mac before macOS 14
        return False
    return True
