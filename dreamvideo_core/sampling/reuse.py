"""What evaluations and steps have in common, made once: encodings, image maps and the branch's residuals.

What is made is found again by a key and, where other code may change what it is made from, by the values of those tensors too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..common.batches import Batch, chunk, join

Keeper = TypeVar("Keeper")


class Row(NamedTuple):
    """What one row of a batch is made from; equal rows have equal keys, and tensors of equal values."""

    key: Hashable
    tensors: tuple[Tensor, ...] = ()


@dataclass(eq=False)
class _Entry:
    row: Row
    made: Any = None

    def is_of(self, row: Row) -> bool:
        return self.row.key == row.key and all(map(torch.equal, self.row.tensors, row.tensors))


class Kept(Generic[Batch]):
    """What was made of rows, for whoever asks for equal ones."""

    split = staticmethod(chunk)  # what is made of several rows into that of each
    join = staticmethod(join)  # the reverse

    def __init__(self):
        self._entries: list[_Entry] = []  # those asked for last stand last

    def get(self, rows: Sequence[Row], make: Callable[[list[int]], Batch], most: int | None = None) -> Batch:
        """What is made of all rows, as one batch.

        `make` is given the numbers of the rows to be made, of equal ones the first, and makes them as one batch. `most` is how
        many rows are kept from now on, the ones asked for last; None keeps all.
        """
        asked = self._find(rows)
        self._keep(asked, most)  # before more is made: that is when memory is short
        missing = self._missing(asked)
        if missing:
            self._fill(asked, missing, make(missing))
        return self._joined(asked)

    def _find(self, rows: Sequence[Row]) -> list[_Entry]:
        """An entry for every row, one for all that are equal; new ones have nothing made yet."""
        known, asked = list(self._entries), []
        for row in rows:
            entry = next((entry for entry in known if entry.is_of(row)), None)
            if entry is None:
                # Whoever gave the tensors may write into them afterwards.
                entry = _Entry(Row(row.key, tuple(tensor.clone() for tensor in row.tensors)))
                known.append(entry)
            asked.append(entry)
        return asked

    def _keep(self, asked: list[_Entry], most: int | None) -> None:
        last = {id(entry): entry for entry in asked}
        entries = [entry for entry in self._entries if id(entry) not in last] + list(last.values())
        self._entries = entries if most is None else entries[len(entries) - min(most, len(entries)) :]

    def _missing(self, asked: list[_Entry]) -> list[int]:
        first = {id(entry): number for number, entry in reversed(list(enumerate(asked))) if entry.made is None}
        return sorted(first.values())

    def _fill(self, asked: list[_Entry], missing: list[int], made: Batch) -> None:
        for number, of_row in zip(missing, self.split(made, len(missing)), strict=True):
            asked[number].made = of_row

    def _joined(self, asked: list[_Entry]) -> Batch:
        return self.join([entry.made for entry in asked])


class EveryNth(Generic[Keeper]):
    """Something that keeps what is made, and is emptied at every `every`-th step; steps are counted from 0."""

    def __init__(self, every: int, fresh: Callable[[], Keeper] = Kept):
        self.every, self._fresh = every, fresh
        self._latest: tuple[int, Keeper] | None = None

    def at(self, step: int) -> Keeper:
        """What keeps things for this step: a fresh one in every `every`-th."""
        turn = step // self.every
        if self._latest is None or self._latest[0] != turn:
            self._latest = turn, self._fresh()
        return self._latest[1]
