"""Passes as CUDA graphs: on a fast GPU launching a pass's kernels one by one can take longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .model import Condition, DreamVideo, Encoding, Residuals, skip_channels

Pass = Callable[..., Tensor | tuple[Tensor, ...]]


class GraphedPasses:
    """`function` of tensors as a graph for every set of shapes it is given, and as one more for the gradients of `module`.

    The numbers stay the same. The weights may change, but neither their places nor which of them are trained. Results
    and gradients lie in memory that the next pass writes over. `options` are those of torch's make_graphed_callables.
    """

    def __init__(self, function: Pass, module: nn.Module | None = None, **options: Any):
        self.function, self.module, self.options = function, module, options
        self.graphs: dict[tuple[torch.Size, ...], Pass] = {}

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = self._captured(inputs)
        return self.graphs[shapes](*inputs)

    def _captured(self, inputs: tuple[Tensor, ...]) -> Pass:
        samples = tuple(tensor.clone() for tensor in inputs)
        function = self.function if self.module is None else _Pass(self.module, self.function)
        # What autocast keeps, weights cast before, would be missing from a graph.
        with torch.autocast("cuda", enabled=torch.is_autocast_enabled("cuda"), cache_enabled=False):
            # Not every weight that is trained need have a part in every pass.
            return torch.cuda.make_graphed_callables(function, samples, allow_unused_input=True, **self.options)


class _Pass(nn.Module):
    """A module for every graph, as torch wants it: one with the weights that the function uses."""

    def __init__(self, module: nn.Module, function: Pass):
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*inputs)


class GraphedModel:
    """What `GuidedModel` calls of a model, `encode`, `retain` and `decode`, as graphs without gradients.

    Shapes are recorded when they come a second time: kernels are chosen by then, and what comes once is not worth it.
    Weights must stay in their places. Graphs keep memory of their own, about as much as a pass takes; where there is not
    enough, passes are launched as ever.
    """

    def __init__(self, model: DreamVideo):
        self.model, self.config, self.image_map = model, model.config, model.image_map
        self._skips = len(skip_channels(model.config.unet))
        # They take turns, so what lies between their inputs and their results may share its memory.
        options = {"num_warmup_iters": 0, "pool": torch.cuda.graph_pool_handle()}
        self._encode = _Recorder(self._encoded, options)
        self._retain = _Recorder(self._retained, options)
        self._decode = _Recorder(self._decoded, options)

    def encode(self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Encoding:
        *skips, mid, temb, text = self._encode(latents, timesteps, text)
        return Encoding(tuple(skips), mid, Condition(temb, text, num_frames))

    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals:
        *skips, mid = self._retain(latents, image_map, timesteps, text)
        return Residuals(tuple(skips), mid)

    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor:
        added = () if residuals is None else (*residuals.skips, residuals.mid)
        condition = encoding.condition
        (prediction,) = self._decode(*encoding.skips, encoding.mid, condition.temb, condition.text, *added)
        return prediction

    # The same as functions of tensors alone; a clip's length is what frames there are to a text.

    def _encoded(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        encoding = self.model.encode(latents, timesteps, text, len(latents) // len(text))
        return *encoding.skips, encoding.mid, encoding.condition.temb, encoding.condition.text

    def _retained(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        residuals = self.model.retain(latents, image_map, timesteps, text, len(latents) // len(text))
        return *residuals.skips, residuals.mid

    def _decoded(self, *tensors: Tensor) -> tuple[Tensor]:
        skips, (mid, temb, text, *added) = tensors[: self._skips], tensors[self._skips :]
        encoding = Encoding(skips, mid, Condition(temb, text, len(mid) // len(text)))
        return (self.model.decode(encoding, Residuals(tuple(added[:-1]), added[-1]) if added else None),)


class _Recorder:
    """`function` of tensors, launched as ever where its shapes are new and a graph from then on; results are the caller's."""

    def __init__(self, function: Pass, options: dict[str, Any]):
        self.function, self.graphed = function, GraphedPasses(function, **options)
        self.seen: set[tuple[torch.Size, ...]] = set()
        self.enough_memory = True

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self.seen or not self.enough_memory:
            self.seen.add(shapes)
            return self.function(*inputs)
        try:
            return tuple(made.clone() for made in self.graphed(*inputs))
        except torch.cuda.OutOfMemoryError as error:
            logging.warning("DreamVideo: too little memory for CUDA graphs, so passes are launched one by one: %s", error)
            self.enough_memory = False
            return self.function(*inputs)
