"""Batches of clips: tensors, or tuples of them, that are cut and joined as one.

The first axis of every tensor counts clips (B, ...), or frames clip by clip (B T, ...). None stands for an input that a model
does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Batch = TypeVar("Batch")  # a tensor, or a (named) tuple of batches


def map_tensors(function: Callable[..., Tensor], *batches: Batch) -> Batch:
    """`function` of every tensor, or of those that stand in the same place in several batches."""
    return tree_map(lambda *tensors: None if tensors[0] is None else function(*tensors), *batches)


def chunk(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` of one size, one after the other; views."""

    def part(number: int) -> Batch:
        return map_tensors(lambda tensor: tensor.chunk(parts)[number], batch)

    return [part(number) for number in range(parts)]


def join(batches: Sequence[Batch]) -> Batch:
    """The clips of all batches, one after the other; the only batch itself."""
    return batches[0] if len(batches) == 1 else map_tensors(lambda *tensors: torch.cat(tensors), *batches)


def select(batch: Batch, clips: Sequence[int], count: int) -> Batch:
    """The clips of these numbers, in this order, out of a batch of `count`; copies."""
    return map_tensors(lambda tensor: tensor.unflatten(0, (count, -1))[list(clips)].flatten(0, 1), batch)
