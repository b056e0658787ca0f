"""Tables that users write: .csv with a header row, or .jsonl with one JSON object per line.

`text_files` reads them, so they may have any encoding that it knows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from .checks import InputError
from .json_files import parse_object
from .text_files import read_text

_ADVICE = "Write a JSON object there."


def is_table(path: Path) -> bool:
    """Whether `read_rows` reads files with this ending, in upper or lower case."""
    return path.suffix.lower() in _READERS


def read_rows(path: Path, name: str) -> list[dict]:
    """The rows in order, as dictionaries by column. `name` is the input that names the file, for messages.

    Values of a .csv are strings, those of a .jsonl of any type. Raises `InputError` for a file that is not what its ending
    says.
    """
    lines = io.StringIO(read_text(path, name), newline="")
    try:
        return _READERS[path.suffix.lower()](lines, f"{name} {path.name}")
    except csv.Error as error:
        raise InputError(f"{name} is {str(path)!r}, which cannot be read ({error}); write it anew, in UTF-8") from error


def _csv_rows(lines: Iterable[str], where: str) -> list[dict]:
    return list(csv.DictReader(lines))


def _json_rows(lines: Iterable[str], where: str) -> list[dict]:
    # Not `str.splitlines`, which also splits at characters that a JSON string may hold, such as U+2028.
    return [
        parse_object(line.strip(), f"{where}, line {number}", _ADVICE) for number, line in enumerate(lines, 1) if line.strip()
    ]


_READERS = {".csv": _csv_rows, ".jsonl": _json_rows}
