"""The progress of a running workflow on the terminal."""

import sys
import time
from textwrap import indent
from typing import TextIO

from .execution import Event


class Progress:
    """A listener to a prompt's events. It prints a line per node and its texts; on a terminal, one live line with steps."""

    def __init__(self, prompt: dict[str, dict], stream: TextIO | None = None):
        self._titles = {node_id: _title(node) for node_id, node in prompt.items()}
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._begin = time.monotonic()
        self._numbers: dict[str, int] = {}
        self._current = ""

    def __call__(self, event: Event) -> None:
        if event.kind == "execution_cached":
            for node_id in event.data["nodes"]:
                self._number(node_id)
        elif event.node:
            self._begin_node(event.display_node)
        elif event.kind == "progress":
            self._show_steps(event.data["value"], event.data["max"])
        elif event.kind == "progress_text":
            self._say(event.data["text"])
        elif event.ends_prompt:
            self.close()

    def close(self) -> None:
        """End the live line, so that later output begins on a new one."""
        if self._live and self._current:
            self._stream.write("\n")
        self._current = ""

    def _begin_node(self, node_id: str) -> None:
        line = f"[{self._number(node_id)}/{len(self._titles)}] {self._titles.get(node_id, node_id)}"
        if line == self._current:
            return
        self._current = line
        self._write(line)

    def _number(self, node_id: str) -> int:
        """A node's number, in the order of their begins; one that continues later keeps its number."""
        return self._numbers.setdefault(node_id, len(self._numbers) + 1)

    def _show_steps(self, value: float, total: float) -> None:
        if self._live:
            self._write(f"{self._current}  {value:g}/{total:g}")

    def _say(self, text: str) -> None:
        """Print a node's text, on a terminal above the live line."""
        words = indent(text, "    ") + "\n"
        self._stream.write(f"\r\x1b[K{words}" if self._live else words)
        if self._live and self._current:
            self._write(self._current)

    def _write(self, line: str) -> None:
        text = f"{line}  {time.monotonic() - self._begin:.1f} s"
        self._stream.write(f"\r\x1b[K{text}" if self._live else f"{text}\n")
        self._stream.flush()


def _title(node: dict) -> str:
    """A node's title, with its class if that differs."""
    title = node.get("_meta", {}).get("title") or node["class_type"]
    return title if title == node["class_type"] else f"{title} ({node['class_type']})"
