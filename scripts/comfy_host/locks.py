"""A lock between processes with Python's own means, because it is needed before anything is installed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has `msvcrt` instead
    fcntl = None

_SECONDS = 0.2  # between two attempts on Windows


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock on a file, which is created if it is missing; waits for other processes."""
    with path.open("a") as file:
        if fcntl is None:
            _lock_on_windows(file.fileno())
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file releases the lock


def _lock_on_windows(descriptor: int) -> None:
    import msvcrt

    while True:
        try:
            return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:  # another process has it
            time.sleep(_SECONDS)
