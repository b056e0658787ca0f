"""Caches on disk: rows of tensors in files of 64, computed once, by one process or several, and read on demand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ..weights.tensor_files import write_tensors

_ROWS_PER_FILE = 64


class CachedRows:
    """Several tensors of rows as if they were one; rows of memory-mapped files are read on demand."""

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors, self.ends = tensors, list(accumulate(map(len, tensors)))

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Copies of the rows with these numbers: (K, ...)."""
        return torch.stack([self._row(row) for row in rows])

    def _row(self, row: int) -> Tensor:
        index = bisect_right(self.ends, row)
        return self.tensors[index][row - self.ends[index]]


@dataclass(frozen=True)
class RowSubset:
    """Chosen rows of a tensor, renumbered from 0 (as `torch.utils.data.Subset`)."""

    of: Tensor | CachedRows | RowSubset
    rows: Sequence[int]

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        return self.of[[self.rows[row] for row in rows]]


@dataclass(frozen=True)
class Processes:
    """The processes that fill a cache together: this one's index, their number, and a barrier between them.

    `on_file` is told how many of this process's files are done, and how many it has.
    """

    index: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None
    on_file: Callable[[int, int], None] = lambda done, total: None


ALONE = Processes()


def fill_cache(
    folder: Path, count: int, compute: Callable[[range], tuple[Mapping[str, Tensor], Mapping[str, str]]], processes: Processes
) -> list[tuple[range, Path]]:
    """The row numbers and the path of every file of a cache of `count` rows; files that are missing are written.

    `compute` gives the tensors and the metadata of a file. The last file's range may go beyond `count`.
    """
    starts = range(0, count, _ROWS_PER_FILE)
    files = [(range(start, start + _ROWS_PER_FILE), folder / f"{start:07d}.safetensors") for start in starts]
    own = files[processes.index :: processes.count]
    for done, (rows, path) in enumerate(own, 1):
        if not path.is_file():
            _write(path, *compute(rows))
        processes.on_file(done, len(own))
    processes.wait()
    return files


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    try:
        write_tensors(path, tensors, metadata)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); what was made before it is kept: make room, and the "
            "same command with --resume goes on"
        ) from error
