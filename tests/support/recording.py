"""What stands for CUDA graphs where there is no GPU: with one place for inputs and one for results, as they have."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor


def without_a_gpu(graphs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Have a module `dreamvideo_core.graphs` record by `_record`; the list is filled with the shapes of what it records."""
    shapes: list[tuple[torch.Size, ...]] = []

    def record(recorder: object, function: Callable, inputs: tuple[Tensor, ...]) -> Callable:
        shapes.append(tuple(tensor.shape for tensor in inputs))
        return _record(function, inputs)

    monkeypatch.setattr(graphs._Recorder, "record", record)
    return shapes


def _record(function: Callable, inputs: tuple[Tensor, ...]) -> Callable:
    places = tuple(tensor.clone() for tensor in inputs)
    results = tuple(torch.full_like(made, torch.nan) for made in function(*places))

    def replay(*tensors: Tensor) -> tuple[Tensor, ...]:
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor)
        for result, made in zip(results, function(*places), strict=True):
            result.copy_(made)
        return results

    return replay
