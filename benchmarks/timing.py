"""Times side by side in one run: alternating calls, medians, and what the machine itself can do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def seconds(call: Callable[[], Any], device: torch.device) -> float:
    """One call, finished on its device."""
    _finish(device)
    started = time.perf_counter()
    call()
    _finish(device)
    return time.perf_counter() - started


def alternate(calls: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device) -> dict[str, float]:
    """The median seconds of every call. Each round runs all of them once, so that a busy minute hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, device))
    return {name: statistics.median(values) for name, values in times.items()}


def matrix_product_rate(dtype: torch.dtype, device: torch.device, size: int = 4096, repeats: int = 5) -> float:
    """FLOP/s of a square matrix product: the ceiling that shares are of."""
    a, b = (torch.randn(size, size, dtype=dtype, device=device) for _ in range(2))
    a @ b  # kernels are chosen
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(repeats))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
