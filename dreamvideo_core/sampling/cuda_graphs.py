"""A model's passes without gradients as CUDA graphs: launching kernels one by one can take longer than running them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from ..common.batches import Batch
from ..models.image_conditions import NO_IMAGE, ImageConditions
from ..models.unet import Encoding, Residuals
from .guided_step import Passes

TensorFunction = Callable[..., tuple[Tensor, ...]]
_Graph = tuple["_OfTensors", TensorFunction]


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

    def encode(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int, image: ImageConditions = NO_IMAGE
    ) -> Encoding:
        return self._recorder.run(self.model.encode, latents, timesteps, text, num_frames, image)

    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals:
        return self._recorder.run(self.model.retain, latents, image_map, timesteps, text, num_frames)

    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor:
        return self._recorder.run(self.model.decode, encoding, residuals)


def _weight_addresses(model: Passes) -> tuple[Hashable, ...]:
    return tuple((weight.data_ptr(), weight.dtype) for weight in model.parameters())


class _OfTensors:
    """A function of nested tuples as a function of the tensors in them, which is what a graph takes and gives."""

    def __init__(self, function: Callable[..., Batch], inputs: tuple):
        self.function = function
        _, self._inputs_of = _flatten(inputs)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, self.results_of = _flatten(self.function(*self._inputs_of(tensors)))
        return results


def _flatten(tree: Batch) -> tuple[tuple[Tensor, ...], Callable[[Iterable[Tensor]], Batch]]:
    """The tensors of nested tuples, and the function that makes such tuples of tensors again; other values stay in them."""
    leaves, structure = tree_flatten(tree)
    others = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]

    def unflatten(tensors: Iterable[Tensor]) -> Batch:
        tensors = iter(tensors)
        return tree_unflatten([next(tensors) if other is None else other[0] for other in others], structure)

    return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor)), unflatten


class _Recorder:
    """Graphs of functions of tensors, which take turns, and share what memory they can.

    What they make on the way and their results lie in one pool. Results are handed out as copies, so that another graph may
    have its inputs where they were: a decoder reads skips where the encoder left its own. So they are never a model's own
    tensors, which would be written over.
    """

    def __init__(self):
        self.graphs: dict[Hashable, _Graph | None] | None = {}  # None when one could not be recorded
        self.results: dict[int, Tensor] = {}  # of all graphs: one for each piece of memory, by its address
        self.pool: tuple[int, int] | None = None
        self.stream: torch.cuda.Stream | None = None

    def run(self, function: Callable[..., Batch], *inputs: Batch) -> Batch:
        """What `function` makes of tensors and tuples of them: the caller's own, not memory that a graph writes over."""
        graph = self._graph(function, inputs)
        if graph is None:
            return function(*inputs)
        of_tensors, replay = graph
        return of_tensors.results_of(made.clone() for made in replay(*_flatten(inputs)[0]))

    def _graph(self, function: Callable[..., Batch], inputs: tuple) -> _Graph | None:
        if self.graphs is None or torch.is_autocast_enabled("cuda"):  # a graph would miss the casts that autocast keeps
            return None
        key = function, tuple(map(_kind, tree_leaves(inputs)))
        if key not in self.graphs:
            self.graphs[key] = None
            return None
        if self.graphs[key] is None:
            of_tensors = _OfTensors(function, inputs)
            try:
                self.graphs[key] = of_tensors, self.record(of_tensors, _flatten(inputs)[0])
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


def _kind(leaf: object) -> Hashable:
    """What a graph is recorded for: tensors by shape and precision, other values by themselves."""
    return (leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf


def _layout(tensor: Tensor) -> Hashable:
    return tensor.shape, tensor.stride(), tensor.dtype
