"""Small untrusted JSON files: bounded in size and depth. One sentence that names the file refuses all others."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .checks import InputError, shown

MAX_BYTES = 32 * 2**20  # the index of a large model's shards has less than one MiB
_AGAIN = "Get the file again."


def read_object(path: Path, what: str, max_bytes: int = MAX_BYTES, advice: str = _AGAIN) -> dict[str, Any]:
    """The JSON object in a file, in UTF-8 with or without a byte order mark.

    `what` says what the file should be ("a configuration"), `advice` what the user does if it is something else. Raises
    `InputError` for a file that cannot be read, is larger than `max_bytes`, or holds anything but an object.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():  # reading a pipe would wait forever
            raise InputError(f"{path} cannot be read as {what} (it is no file). {advice}")
        if size > max_bytes:
            raise InputError(f"{path} has {size:,} bytes, too many for {what}; allowed: up to {max_bytes:,}. {advice}")
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read as {what} ({error.strerror or error}). {advice}") from error
    return parse_object(text, f"{path} cannot be read as {what}: it", advice)


def parse_object(text: str | bytes, where: str, advice: str = _AGAIN) -> dict[str, Any]:
    """The JSON object in `text`; raises `InputError` for anything else, with a message that begins with `where`."""
    begins = shown(text[:40])
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        found = json.loads(decoded, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise InputError(f"{where} is nested too deeply; it begins with {begins}. {advice}") from None
    except ValueError as error:  # of JSON, of UTF-8, or of a number with thousands of digits
        raise InputError(f"{where} is no JSON ({error}); it begins with {begins}. {advice}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} is {begins}; it must be a JSON object. {advice}")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number
