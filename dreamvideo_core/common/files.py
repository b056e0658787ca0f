"""Files: written whole or not at all, digested by their content, and named so that every system can have them."""

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

_CHUNK = 1 << 24  # bytes
_STEM_BYTES = 150  # a temporary file's name is longer than its target's, and names have at most 255 bytes
_FOLDER_CHARACTERS, _NAME_BYTES = 180, 255
# Windows allows these characters in no name, and takes these names for devices whatever their ending.
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE)
# Windows refuses to replace a file while another program has it open, so replacing is tried again.
_TRIES, _SECONDS_BETWEEN = 10, 0.1


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same ending. It replaces `path` if the block raises nothing."""
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
    """Yield a new folder beside `path`, which is missing or empty. It becomes `path` if the block raises nothing."""
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
    """Write `text` as the whole of a file, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def json_text(value: object, indent: int | None = None) -> str:
    """JSON that ends with a line break; characters of any script stay as they are."""
    text = json.dumps(value, ensure_ascii=False, indent=indent) + "\n"
    # File names and clients' texts may hold half of a UTF-16 pair, which UTF-8 cannot encode: it becomes an escape.
    return text.encode(errors="backslashreplace").decode()


def json_lines(rows: Iterable[dict]) -> str:
    """One line of JSON per row."""
    return "".join(map(json_text, rows))


def in_order(paths: Iterable[Path]) -> list[Path]:
    """The paths sorted alike on every system: on Windows, paths themselves compare case-insensitively."""
    return sorted(paths, key=lambda path: path.parts)


def digest(paths: Iterable[Path], size: int) -> str:
    """A hash of these files' contents in order: `size` bytes in hexadecimal."""
    found = hashlib.blake2b(digest_size=size)
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    return found.hexdigest()


def folder_below(root: Path, name: str, what: str, example: str) -> Path:
    """The folder `name` below `root`. `name` is a relative path with / or \\; every system allows the same ones.

    Raises `InputError` for a name that leads out of `root`, be it by a link, or that some system cannot have. `what` is the
    input that holds the name, `example` an allowed one for the message.
    """
    parts = PureWindowsPath(name.strip()).parts
    reason = _not_below(name.strip(), parts)
    if reason is None and not _lies_below(root, root.joinpath(*parts)):
        reason = "a link in it leads elsewhere"
    if reason is not None:
        raise InputError(f"{what} is {shown(name)}; allowed: {example} ({reason})")
    return root.joinpath(*parts)


def _not_below(name: str, parts: tuple[str, ...]) -> str | None:
    """Why `name`, split into `parts`, is no relative path that every system can have; None if it is one."""
    if not parts:
        return "it names no folder"
    if len(name) > _FOLDER_CHARACTERS:
        return f"it has {len(name)} characters, more than {_FOLDER_CHARACTERS}"
    if PureWindowsPath(name).anchor:
        return "it begins at another place"
    return next(filter(None, map(_name_fault, parts)), None)


def _lies_below(root: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False


def _name_fault(part: str) -> str | None:
    """Why some system cannot have this part of a path as a name; None if all can."""
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
    """A new name beside `target`. It is random: processes in different containers may have equal process ids."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = target.stem.encode(errors="surrogateescape")[:_STEM_BYTES].decode(errors="ignore")
    return target.with_name(f".{stem}.{uuid.uuid4().hex}{target.suffix}")
