"""A model's passes without gradients as CUDA graphs: launching kernels one by one can take longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..models.unet import Encoding, Residuals, skip_channels
from .guided_step import Passes

TensorFunction = Callable[..., tuple[Tensor, ...]]


def available(device: torch.device) -> bool:
    """Whether a device has CUDA graphs; AMD's, which torch calls cuda too, were never tried."""
    return device.type == "cuda" and torch.version.cuda is not None


class GraphedModel:
    """`encode`, `retain` and `decode` of a model as graphs.

    Shapes are recorded when they come a second time: kernels are chosen by then, and what comes once is not worth it.
    Graphs keep memory of their own, about as much as a pass takes; where there is not enough, where a pass cannot be
    recorded, or under autocast, passes are launched as ever.
    """

    def __init__(self, model: Passes):
        self.model, self.config, self.image_map = model, model.config, model.image_map
        self._recorder, self._addresses = _Recorder(), _weight_addresses(model)

    def fits(self, model: Passes) -> bool:
        """Whether these are graphs of a model, and its weights where they were: graphs know them by their addresses."""
        return self.model is model and self._addresses == _weight_addresses(model)

    def encode(self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Encoding:
        *skips, mid, temb, text = self._recorder.run(_encode, self.model, latents, timesteps, text)
        return Encoding(tuple(skips), mid, temb, text)

    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals:
        *skips, mid = self._recorder.run(_retain, self.model, latents, image_map, timesteps, text)
        return Residuals(tuple(skips), mid)

    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor:
        (prediction,) = self._recorder.run(_decode, self.model, *tree_leaves(encoding), *tree_leaves(residuals or ()))
        return prediction


def _weight_addresses(model: Passes) -> tuple[Hashable, ...]:
    return tuple((weight.data_ptr(), weight.dtype) for weight in model.parameters())


# A model's passes as functions of tensors alone; a clip's length is what frames there are to a text.


def _encode(model: Passes, latents: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, ...]:
    return tuple(tree_leaves(model.encode(latents, timesteps, text, len(latents) // len(text))))


def _retain(model: Passes, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor) -> tuple[Tensor, ...]:
    return tuple(tree_leaves(model.retain(latents, image_map, timesteps, text, len(latents) // len(text))))


def _decode(model: Passes, *tensors: Tensor) -> tuple[Tensor]:
    count = len(skip_channels(model.config.unet))
    skips, (mid, temb, text, *added) = tensors[:count], tensors[count:]
    residuals = Residuals(tuple(added[:-1]), added[-1]) if added else None
    return (model.decode(Encoding(skips, mid, temb, text), residuals),)


class _Recorder:
    """Graphs of functions of tensors, which take turns, and share what memory they can.

    What they make on the way and their results lie in one pool. Results are handed out as copies, so that another graph may
    have its inputs where they were: a decoder reads skips where the encoder left its own. So they are never a model's own
    tensors, which would be written over.
    """

    def __init__(self):
        self.graphs: dict[Hashable, TensorFunction | None] | None = {}  # None when one could not be recorded
        self.results: dict[int, Tensor] = {}  # of all graphs: one for each piece of memory, by its address
        self.pool: tuple[int, int] | None = None
        self.stream: torch.cuda.Stream | None = None

    def run(self, function: TensorFunction, model: Passes, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `function` makes of a model and tensors: the caller's own, not memory that a graph writes over."""
        replay = self._graph(function, model, inputs)
        return function(model, *inputs) if replay is None else tuple(made.clone() for made in replay(*inputs))

    def _graph(self, function: TensorFunction, model: Passes, inputs: tuple[Tensor, ...]) -> TensorFunction | None:
        if self.graphs is None or torch.is_autocast_enabled("cuda"):  # a graph would miss the casts that autocast keeps
            return None
        key = function, tuple(tensor.shape for tensor in inputs)
        if key not in self.graphs:
            self.graphs[key] = None
            return None
        if self.graphs[key] is None:
            try:
                self.graphs[key] = self.record(partial(function, model), inputs)
            except RuntimeError as error:  # torch.cuda.OutOfMemoryError is one
                message = "DreamVideo: CUDA graphs do not work here, so passes are launched one by one: %s"
                logging.warning(message, str(error))
                self.graphs = self.pool = None
                self.results.clear()
                return None
        return self.graphs[key]

    def record(self, function: TensorFunction, inputs: tuple[Tensor, ...]) -> TensorFunction:
        """`function` as a graph for inputs like these. Results lie in memory that the next call of any graph writes over."""
        places = self._places_for(inputs)
        graph, results = self.capture(function, places)
        self.results |= {tensor.untyped_storage().data_ptr(): tensor for tensor in results}

        def replay(*inputs: Tensor) -> tuple[Tensor, ...]:
            for place, tensor in zip(places, inputs, strict=True):
                place.copy_(tensor)
            graph.replay()
            return results

        return replay

    def _places_for(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Where a graph finds inputs like these: each in memory of its own, or in that of another graph's result."""
        spare = list(self.results.values())

        def place(tensor: Tensor) -> Tensor:
            alike = (number for number, result in enumerate(spare) if _layout(result) == _layout(tensor))
            number = next(alike, None)
            return tensor.clone() if number is None else spare.pop(number)

        return tuple(map(place, inputs))

    def capture(self, function: TensorFunction, places: tuple[Tensor, ...]) -> tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...]]:
        """A graph that makes the results of `function` from what is in `places`, and where they will be."""
        device, graph = places[0].device, torch.cuda.CUDAGraph()
        if self.pool is None:
            self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
        # Other threads of a host may use the GPU meanwhile; a capture that fails may not leave its own stream by itself.
        capture = torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local")
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), capture:
            results = function(*places)
        return graph, results


def _layout(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype
