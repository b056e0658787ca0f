"""Text files that people write, in the encodings in which editors save them."""

from __future__ import annotations

import codecs
from pathlib import Path

from .checks import InputError

# UTF-32's mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path, name: str) -> str:
    """The text in a file without its byte order mark; `name` is what the person calls the file.

    UTF-8, or UTF-16 and UTF-32 with a mark. Raises `InputError` for any other encoding, and for a file that cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name} is {str(path)!r}, which cannot be read ({error.strerror or error})") from error
    return decode_text(data, f"{name} is {str(path)!r}, which")


def decode_text(data: bytes, what: str) -> str:
    """The text that the bytes of a file are.

    `what` begins the message of the `InputError`, as in "--prompts is 'a.txt', which".
    """
    encoding = _encoding_of(data)
    try:
        text = data.decode(encoding)
    except UnicodeError as error:
        line = _line(data, error.start if isinstance(error, UnicodeDecodeError) else 0)
        name = encoding.removesuffix("-sig").upper()
        raise InputError(f"{what} is no {name} in line {line}; save it as UTF-8") from error
    if "\0" in text:
        line = _line(data, data.index(0))
        raise InputError(f"{what} has a zero byte in line {line}; it is no text, or needs to be saved as UTF-8")
    return text


def _encoding_of(start: bytes) -> str:
    """Python's name of the encoding of a text that begins so: what its byte order mark says, else UTF-8."""
    return next((encoding for mark, encoding in _MARKS if start.startswith(mark)), "utf-8-sig")


def _line(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1
