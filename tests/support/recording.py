"""What stands for a CUDA graph where there is no GPU: it reads its inputs in one place and leaves results in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor


def without_a_gpu(graphs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Have a module `dreamvideo_core.graphs` capture a `_Graph`; the list is filled with the shapes of their inputs."""
    shapes: list[tuple[torch.Size, ...]] = []

    def capture(recorder: object, function: Callable, places: tuple[Tensor, ...]) -> tuple[_Graph, tuple[Tensor, ...]]:
        shapes.append(tuple(tensor.shape for tensor in places))
        results = tuple(torch.full_like(made, torch.nan) for made in function(*places))
        return _Graph(function, places, results), results

    monkeypatch.setattr(graphs._Recorder, "capture", capture)
    return shapes


@dataclass
class _Graph:
    function: Callable
    places: tuple[Tensor, ...]
    results: tuple[Tensor, ...]

    def replay(self) -> None:
        for result, made in zip(self.results, self.function(*self.places), strict=True):
            result.copy_(made)
