"""Writing files so that nothing half-written is left behind, and telling them apart by what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CHUNK = 1 << 24


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same ending; it takes the place of `path` when all went well."""
    target = Path(path)
    temporary = _beside(target)
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a new folder beside `path`; it becomes `path`, which is missing or empty, when all went well."""
    target = Path(path)
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        if target.is_dir():
            target.rmdir()
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """The whole of a text file, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_lines(rows: Iterable[dict]) -> str:
    """A line of JSON for every row, readable in any script."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # Names of files may hold what is no UTF-8: that is escaped, as JSON does.
    return lines.encode(errors="backslashreplace").decode()


def digest(paths: Iterable[Path], size: int) -> str:
    """A short name for what is in files, one after the other: `size` bytes in hexadecimal."""
    found = hashlib.blake2b(digest_size=size)
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def _beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
