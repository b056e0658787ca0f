"""Consoles whose encoding lacks some characters, as on Windows: these are printed as escapes and raise no error."""

from __future__ import annotations

import io
import logging
import sys


def print_anything() -> None:
    """Have this process print characters that its console's encoding lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class EscapeFilter(logging.Filter):
    """The same for one logger, where the process's streams belong to somebody else (ComfyUI)."""

    def filter(self, record: logging.LogRecord) -> bool:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        line = record.getMessage()
        written = line.encode(encoding, "backslashreplace").decode(encoding)
        if written != line:
            record.msg, record.args = written, ()
        return True
