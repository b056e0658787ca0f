"""Tables that a person writes: .csv with the columns' names in its first row, or .jsonl with a JSON object a line.

Both are UTF-8, with or without a byte order mark, which spreadsheets and Windows' editors put in front.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from .checks import InputError


def is_table(path: Path) -> bool:
    """Whether the file's ending, in any case, is that of a table that `read_rows` reads."""
    return path.suffix.lower() in _READERS


def read_rows(path: Path, name: str) -> list[dict]:
    """The rows in order, each by its columns' names; `name` is what the person calls the file.

    What a .jsonl holds in a column may be of any type. Raises `InputError` for a file that is not what its ending says.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return _READERS[path.suffix.lower()](lines, f"{name} {path.name}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is {str(path)!r}, which cannot be read ({error}); write it anew, in UTF-8") from error


def parse_object(text: str, where: str) -> dict:
    """The JSON object that `text` is; `where` it stands is named in the `InputError` for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON ({error}); write a JSON object there") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} is {text[:40]!r}; it must be a JSON object")
    return found


def _csv_rows(lines: Iterable[str], where: str) -> list[dict]:
    return list(csv.DictReader(lines))


def _json_rows(lines: Iterable[str], where: str) -> list[dict]:
    # A file's lines, not `splitlines`: that one ends lines at characters too which a text in JSON may hold, such as U+2028.
    return [parse_object(line.strip(), f"{where}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


_READERS = {".csv": _csv_rows, ".jsonl": _json_rows}
