"""What stands for a CUDA graph where there is no GPU: it reads its inputs in one place and leaves results in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor


def without_a_gpu(graphs: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, ...]]:
    """Have a module `cuda_graphs` capture a `_Graph`; the list is filled with the shapes of their inputs."""
    shapes: list[tuple[torch.Size, ...]] = []

    def capture(recorder: object, function: Callable, places: tuple[Tensor, ...]) -> tuple[_Graph, tuple[Tensor, ...]]:
        shapes.append(tuple(tensor.shape for tensor in places))
        own = {tensor.data_ptr() for tensor in places}
        # What a function returns of its inputs stays in their place.
        results = tuple(made if made.data_ptr() in own else torch.full_like(made, torch.nan) for made in function(*places))
        graph = _Graph(function, places, results, vars(recorder).setdefault("captured", []))
        graph.captured.append(results)
        return graph, results

    monkeypatch.setattr(graphs._Recorder, "capture", capture)
    return shapes


@dataclass
class _Graph:
    """`captured` are the results of all graphs that take turns with this one."""

    function: Callable
    places: tuple[Tensor, ...]
    results: tuple[Tensor, ...]
    captured: list[tuple[Tensor, ...]]

    def replay(self) -> None:
        """Nobody may count on what other graphs have left, but for the inputs of this one."""
        kept = {tensor.data_ptr() for tensor in self.places}
        for result in (result for results in self.captured for result in results if result.data_ptr() not in kept):
            result.fill_(torch.nan)
        for result, made in zip(self.results, self.function(*self.places), strict=True):
            result.copy_(made)
