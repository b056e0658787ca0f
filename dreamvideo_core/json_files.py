"""Small JSON files of unknown origin: bounded in size and depth, and refused in one sentence that names the file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .checks import InputError

MAX_BYTES = 32 * 2**20  # the index of a large model's shards has less than one


def read_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file, in UTF-8 with or without a byte order mark.

    `what` says what the file should be ("a configuration"). Raises `InputError` for a file that cannot be read, is larger than
    `MAX_BYTES`, or holds anything else.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(
                f"{path} has {size:,} bytes, too many for {what}; allowed: up to {MAX_BYTES:,}. Get the file again."
            )
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read as {what} ({error.strerror or error}). Get the file again.") from error
    return parse_object(text, f"{path}: {what}")


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """The JSON object that `text` is; `where` it stands begins the message of the `InputError` for anything else."""
    start = text[:40]
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        found = json.loads(decoded, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply, and begins with {start!r}. Get the file again.") from None
    except ValueError as error:  # of JSON, of UTF-8, or of a number with thousands of digits
        raise InputError(f"{where} is no JSON ({error}), and begins with {start!r}. Get the file again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} must be a JSON object, and begins with {start!r}. Get the file again.")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too large a number")
    return number
