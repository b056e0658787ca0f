"""Reading batches ahead of the training loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Batch = TypeVar("Batch")
_AHEAD = 2  # batches per reader: one that is being read, and one that is ready


def read_ahead(read: Callable[[int], Batch], numbers: Iterable[int], readers: int) -> Iterator[Batch]:
    """Yields `read(number)` for every number in order, while `readers` threads read the next ones. 0 reads on demand.

    An exception of `read` is raised at its number's turn. Close the iterator to end the threads early.
    """
    if not readers:
        yield from map(read, numbers)
        return
    left = iter(numbers)
    # Threads suffice: a batch is mostly copied from mapped files, during which torch releases the GIL.
    pool = ThreadPoolExecutor(readers, "reader")
    try:
        ahead = deque(pool.submit(read, number) for number in islice(left, _AHEAD * readers))
        while ahead:
            batch = ahead.popleft().result()
            ahead.extend(pool.submit(read, number) for number in islice(left, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
