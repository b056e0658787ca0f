"""Training passes, with their gradients, as CUDA graphs; those of sampling have none (`..graphs`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GraphedPasses:
    """`function` of tensors, a pass of `module`, as a forward and a backward graph for every set of shapes it is given.

    The numbers stay the same. The module's weights may change, but neither their places nor which of them are trained.
    Gradients lie in memory that the next backward pass writes over: a step is taken after each.
    """

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]):
        self.module, self.function = module, function
        self.graphs: dict[tuple[torch.Size, ...], Callable[..., Tensor]] = {}

    def __call__(self, *inputs: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = self._captured(inputs)
        return self.graphs[shapes](*inputs)

    def _captured(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        samples = tuple(tensor.clone() for tensor in inputs)
        # What autocast keeps, weights cast before, would be missing from a graph.
        with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            # Not every weight that is trained need have a part in every pass.
            return torch.cuda.make_graphed_callables(_Pass(self.module, self.function), samples, allow_unused_input=True)


class _Pass(nn.Module):
    """A module for every graph, as torch wants it: one with the weights that the function uses."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)
