"""A model's passes as CUDA graphs: on a fast GPU launching a pass's kernels one by one can take longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .config import ModelConfig
from .model import Condition, Encoding, Residuals, skip_channels

Pass = Callable[..., tuple[Tensor, ...]]


class Passes(Protocol):
    """What guidance calls of a model; `DreamVideo` has it, and a host's model may."""

    config: ModelConfig

    def image_map(self, image: Tensor) -> Tensor: ...
    def encode(self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Encoding: ...
    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals: ...
    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor: ...


class GraphedModel:
    """`encode`, `retain` and `decode` of a model as graphs, without gradients.

    Shapes are recorded when they come a second time: kernels are chosen by then, and what comes once is not worth it.
    Weights must stay in their places. Graphs keep memory of their own, about as much as a pass takes; where there is not
    enough, or a pass cannot be recorded, it is launched as ever.
    """

    def __init__(self, model: Passes):
        self.model, self.config, self.image_map = model, model.config, model.image_map
        self._skips = len(skip_channels(model.config.unet))
        # They take turns, so what lies between their inputs and their results may share its memory.
        pool = torch.cuda.graph_pool_handle()
        self._encode, self._retain, self._decode = (
            _Recorder(function, pool) for function in (self._encoded, self._retained, self._decoded)
        )

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

    def __init__(self, function: Pass, pool: tuple[int, int]):
        self.function, self.pool = function, pool
        self.graphs: dict[tuple[torch.Size, ...], Pass | None] = {}
        self.works = True

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        shapes = tuple(tensor.shape for tensor in inputs)
        if not self.works or shapes not in self.graphs:
            self.graphs[shapes] = None
            return self.function(*inputs)
        try:
            if self.graphs[shapes] is None:
                self.graphs[shapes] = record(self.function, inputs, self.pool)
            return tuple(made.clone() for made in self.graphs[shapes](*inputs))
        except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
            logging.warning("DreamVideo: CUDA graphs do not work here, so passes are launched one by one: %s", error)
            self.works = False
            self.graphs.clear()
            return self.function(*inputs)


def record(function: Pass, inputs: tuple[Tensor, ...], pool: tuple[int, int]) -> Pass:
    """`function` as a graph for inputs like these. Results lie in memory that the next call writes over."""
    places = tuple(tensor.clone() for tensor in inputs)
    graph = torch.cuda.CUDAGraph()
    # A capture that fails may not leave its own stream by itself; other threads of a host may use the GPU meanwhile.
    capture = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    with torch.cuda.stream(torch.cuda.current_stream()), capture:
        results = function(*places)

    def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
        for place, tensor in zip(places, inputs, strict=True):
            place.copy_(tensor)
        graph.replay()
        return results

    return replay
