"""What pages of figures have in common: tables, and the words that say how a page was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dreamvideo_core.evaluation.generation import fingerprint


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table."""
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cells) + " |"


def provenance(command: str, checkpoint: Path) -> Iterator[str]:
    """The lines that say with which weights a page was made, and how to make it again."""
    yield f"Measured with the weights {checkpoint.name} ({fingerprint(checkpoint)}) by"
    yield f"`python3 scripts/comfyui.py exec python benchmarks/{command}`."
