"""Writing files so that nothing half-written is left behind, and telling them apart by what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath

from .checks import InputError, shown

_CHUNK = 1 << 24
_STEM_BYTES = 150  # of the name of a temporary file, so that it is no longer than systems allow
_FOLDER_CHARACTERS, _NAME_BYTES = 180, 255
# What Windows allows in no name, and what it takes for a device whatever its ending.
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
# While another program looks into a file, Windows lets nobody replace it.
_TRIES, _SECONDS_BETWEEN = 10, 0.1


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same ending; it takes the place of `path` when all went well."""
    target = Path(path)
    temporary = _beside(target)
    try:
        yield temporary
        _replace(temporary, target)
    finally:
        with suppress(OSError):
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
        _replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """The whole of a text file, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: object, indent: int | None = None) -> str:
    """JSON with a last line break, readable in any script."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    # Names of files and texts of clients may hold halves of UTF-16 pairs, which are no UTF-8: they are escaped, as JSON does.
    return text.encode(errors="backslashreplace").decode()


def json_lines(rows: Iterable[dict]) -> str:
    """A line of JSON for every row."""
    return "".join(map(json_text, rows))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted alike on every system: paths themselves compare without regard to capitals on Windows."""
    return sorted(paths, key=lambda path: path.parts)


def digest(paths: Iterable[Path], size: int) -> str:
    """A short name for what is in files, one after the other: `size` bytes in hexadecimal."""
    found = hashlib.blake2b(digest_size=size)
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def folder_below(root: Path, name: str, what: str, example: str) -> Path:
    """The folder `name`, a relative path with / or \\ in it, below `root`; the same names are allowed on every system.

    Raises `InputError` for a name that leads elsewhere, also by a link, or that some system cannot have. `what` is the input
    that holds the name, `example` one that is allowed.
    """
    parts = PureWindowsPath(name.strip()).parts
    reason = _not_below(name.strip(), parts)
    if reason is None and not _lies_below(root, root.joinpath(*parts)):
        reason = "a link in it leads elsewhere"
    if reason is not None:
        raise InputError(f"{what} is {shown(name)}; allowed: {example} ({reason})")
    return root.joinpath(*parts)


def _not_below(name: str, parts: tuple[str, ...]) -> str | None:
    """Why a relative path with these parts is none that every system can have, or None."""
    if not parts:
        return "it names no folder"
    if len(name) > _FOLDER_CHARACTERS:
        return f"it has {len(name)} characters, more than {_FOLDER_CHARACTERS}"
    if PureWindowsPath(name).anchor:
        return "it begins at another place"
    return next(filter(None, map(_no_name, parts)), None)


def _lies_below(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def _no_name(part: str) -> str | None:
    """Why a part of a path is no name for a file on every system, or None."""
    if part == "..":
        return ".. leads out of it"
    if _FORBIDDEN.search(part):
        return f"{part!r} has a character that names cannot have"
    if part.endswith((".", " ")):
        return f"{part!r} ends with a dot or a space"
    if _DEVICES.fullmatch(part):
        return f"{part!r} is a device on Windows"
    try:
        size = len(part.encode())
    except UnicodeEncodeError:
        return f"{part!r} is no text"
    return f"a name in it has {size} bytes, more than {_NAME_BYTES}" if size > _NAME_BYTES else None


def _replace(temporary: Path, target: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            os.replace(temporary, target)
            return
        except PermissionError:
            if not tries_left:
                raise
            time.sleep(_SECONDS_BETWEEN)


def _beside(target: Path) -> Path:
    """A name that no other process takes, in containers with equal process numbers neither."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = target.stem.encode(errors="surrogateescape")[:_STEM_BYTES].decode(errors="ignore")
    return target.with_name(f".{stem}.{uuid.uuid4().hex}{target.suffix}")
