"""What Windows does with files that somebody holds: they can be neither replaced, renamed nor deleted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def hold_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process is refused what Windows refuses for files that it has mapped or open itself.

    On Windows the system does so by itself; on macOS, which has no such table, nothing is refused.
    """
    if not sys.platform.startswith("linux"):
        return

    def refuse_held(call: Callable) -> Callable:
        def checked(*arguments, **options):
            for path in arguments:
                if os.path.realpath(path) in _held():
                    raise PermissionError(13, "The process cannot access the file because it is being used", str(path))
            return call(*arguments, **options)

        return checked

    for name in ("replace", "rename", "unlink", "remove"):
        monkeypatch.setattr(os, name, refuse_held(getattr(os, name)))


def _held() -> set[str]:
    """The files that this process has mapped or open."""
    mapped = {line.split(maxsplit=5)[5] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    return mapped | opened
