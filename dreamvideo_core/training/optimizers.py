"""The optimisers that a recipe can choose."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .recipe import Phase

BETAS = (0.9, 0.99)


def make_optimizer(parameters: Iterable[nn.Parameter], phase: Phase) -> torch.optim.Optimizer:
    """The phase's optimiser. AdamW keeps two numbers per weight, Adafactor one per row and per column."""
    if phase.optimizer == "adamw":
        parameters = list(parameters)
        fused = True if all(parameter.is_cuda for parameter in parameters) else None  # None: torch chooses
        return torch.optim.AdamW(parameters, phase.learning_rate, betas=BETAS, weight_decay=phase.weight_decay, fused=fused)
    return MatrixAdafactor(parameters, phase.learning_rate, weight_decay=phase.weight_decay)


class MatrixAdafactor(torch.optim.Adafactor):
    """Adafactor (Shazeer and Stern, 2018) that views every weight as a matrix (out, all other dimensions).

    torch's factors the last two dimensions, so of a (3, 1, 1) convolution it would keep two numbers per weight.
    """

    @torch.no_grad()
    def step(self, closure=None):
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None and p.ndim > 2]
        shapes = [p.shape for p in weights]
        for parameter in weights:
            _reshape(parameter, (len(parameter), -1))
        try:
            return super().step(closure)
        finally:
            for parameter, shape in zip(weights, shapes, strict=True):
                _reshape(parameter, shape)


def _reshape(parameter: nn.Parameter, shape: tuple[int, ...]) -> None:
    """Give a parameter and its gradient another shape in place."""
    gradient, parameter.grad = parameter.grad, None
    parameter.data = parameter.data.view(shape)
    parameter.grad = gradient.view(shape)
