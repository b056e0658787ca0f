"""Text files that users write, in the encodings in which editors save them."""

from __future__ import annotations

import codecs
from pathlib import Path

from .checks import InputError

# UTF-32 first: its byte order mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, name: str) -> str:
    """The text of a file, without its byte order mark. `name` is the input that names the file, for messages.

    Allowed are UTF-8, and UTF-16 and UTF-32 with a mark. Raises `InputError` for other encodings and unreadable files.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} is {str(path)!r}, which cannot be read ({error.strerror or error})") from error
    return decode_text(data, f"{name} is {str(path)!r}, which")


def decode_text(data: bytes, what: str) -> str:
    """The text that these bytes encode; `what` begins the message of an `InputError`: "--prompts is 'a.txt', which"."""
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        line = _line_of(data, error.start if isinstance(error, UnicodeDecodeError) else 0)
        name = encoding.removesuffix("-sig").upper()
        raise InputError(f"{what} is no {name} in line {line}; save it as UTF-8") from error
    if "\0" in text:
        line = _line_of(data, data.index(0))
        raise InputError(f"{what} has a zero byte in line {line}; it is no text, or needs to be saved as UTF-8")
    return text


def _line_of(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1
