"""Batches read ahead of the loop that takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Batch = TypeVar("Batch")
_AHEAD = 2  # batches for each reader: one being read and one that is ready


def read_ahead(read: Callable[[int], Batch], numbers: Iterable[int], readers: int) -> Iterator[Batch]:
    """`read` of every number, in order, while so many threads read the next ones; with 0 each is read when it is asked for.

    What `read` raises is raised where its number has its turn. Close the iterator to end the threads before its end.
    """
    if not readers:
        yield from map(read, numbers)
        return
    left = iter(numbers)
    # Threads, not processes: a batch is copied out of mapped files, and torch lets other threads run while it copies.
    pool = ThreadPoolExecutor(readers, "reader")
    try:
        ahead = deque(pool.submit(read, number) for number in islice(left, _AHEAD * readers))
        while ahead:
            batch = ahead.popleft().result()
            ahead.extend(pool.submit(read, number) for number in islice(left, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
