"""Rows kept on disk in blocks: made once, by one process or shared among several, and read when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from ..weights.tensor_files import write_tensors

_BLOCK = 64


class Rows:
    """The rows of many tensors as if they were one tensor; those of mapped files are read when they are asked for."""

    def __init__(self, blocks: Sequence[Tensor]):
        self.blocks, self.ends = blocks, list(accumulate(map(len, blocks)))

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Some rows (K, ...), copied."""
        return torch.stack([self._row(row) for row in rows])

    def _row(self, row: int) -> Tensor:
        block = bisect_right(self.ends, row)
        return self.blocks[block][row - self.ends[block]]


@dataclass(frozen=True)
class SomeRows:
    """Those `rows` that were chosen, as if there were no others."""

    of: Tensor | Rows | SomeRows
    rows: Sequence[int]

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        return self.of[[self.rows[row] for row in rows]]


@dataclass(frozen=True)
class Makers:
    """Who makes a cache: each of several processes makes every so many-th block, and then waits for the others."""

    process: int = 0
    processes: int = 1
    wait: Callable[[], None] = lambda: None
    on_block: Callable[[int, int], None] = lambda done, total: None


ALONE = Makers()


def make_blocks(
    folder: Path, count: int, make: Callable[[range], tuple[Mapping[str, Tensor], Mapping[str, str]]], makers: Makers
) -> list[tuple[range, Path]]:
    """The rows and the file of every block of a cache of `count` rows; what a stopped run left out is made now.

    `make` gives the tensors and the metadata of a block's file. The last block's range may go beyond `count`.
    """
    blocks = [(range(start, start + _BLOCK), folder / f"{start:07d}.safetensors") for start in range(0, count, _BLOCK)]
    own = blocks[makers.process :: makers.processes]
    for done, (rows, path) in enumerate(own, 1):
        if not path.is_file():
            _write(path, *make(rows))
        makers.on_block(done, len(own))
    makers.wait()
    return blocks


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    try:
        write_tensors(path, tensors, metadata)
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); what was made before it is kept: make room, and the "
            "same command with --resume goes on"
        ) from error
