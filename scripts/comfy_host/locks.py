"""One process at a time, by Python's own means: nothing else is installed where this is needed first."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has `msvcrt` in its place
    fcntl = None

_SECONDS = 0.2  # between two attempts on Windows


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process is within `alone` of this file, which is made where it is missing."""
    with path.open("a") as file:
        if fcntl is None:
            _lock_on_windows(file.fileno())
        else:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file ends the lock


def _lock_on_windows(descriptor: int) -> None:
    import msvcrt

    while True:
        try:
            return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:  # another process has it
            time.sleep(_SECONDS)
