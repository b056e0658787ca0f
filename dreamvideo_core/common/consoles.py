"""Consoles that lack letters, as those of Windows do where their output goes into a file: escapes in place of errors."""

from __future__ import annotations

import io
import logging
import sys


def print_anything() -> None:
    """Let this process print letters that its console's encoding lacks as their escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Escaping(logging.Filter):
    """The same for the lines of a logger in a process whose streams are not ours to change."""

    def filter(self, record: logging.LogRecord) -> bool:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        line = record.getMessage()
        written = line.encode(encoding, "backslashreplace").decode(encoding)
        if written != line:
            record.msg, record.args = written, ()
        return True
