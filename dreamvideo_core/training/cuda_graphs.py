"""Training passes with their gradients as CUDA graphs. `sampling.cuda_graphs` has those without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GraphedPasses:
    """`function`, a pass of `module` on tensors, as a forward and a backward graph per set of input shapes.

    Results stay equal bit for bit. Weights may change their values, but not their addresses, nor which of them are trained.
    The next backward pass overwrites the gradients, so an optimiser step must follow each.
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
        # Without autocast's cache: a weight that was cast before the capture would be missing from the graph.
        with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            graphable = _GraphableModule(self.module, self.function)
            # A pass need not use every trained weight.
            return torch.cuda.make_graphed_callables(graphable, samples, allow_unused_input=True)


class _GraphableModule(nn.Module):
    """`function` as the forward pass of a module that owns its weights, which `make_graphed_callables` asks for."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)
