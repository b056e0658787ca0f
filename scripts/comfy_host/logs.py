"""Reading a server's log."""

import re
from pathlib import Path

TAIL_LINES = 30
TRACEBACK = "Traceback (most recent call last)"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    return "\n".join(_lines(log)[-lines:])


def pack_error(log: Path, pack: str) -> str:
    """Why `pack` was not loaded: ComfyUI's message, with the traceback of a failed import."""
    lines = _lines(log)
    for number, line in enumerate(lines):
        if f"custom_nodes/{pack}" not in line.replace("\\", "/"):
            continue
        if "Cannot import" in line:
            begin = max((n for n in range(number) if TRACEBACK in lines[n]), default=number)
            return "\n".join(lines[begin : number + 1])
        if "comfy_entrypoint" in line:
            return line
    return f"the log says nothing about it: {log}"


def _lines(log: Path) -> list[str]:
    return COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace")).splitlines()
