"""How progress bars look."""

from __future__ import annotations

from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn


def columns(amount: ProgressColumn) -> tuple[ProgressColumn, ...]:
    """What is done, how far it is, `amount`, and the time that is left, or that it took."""
    return TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn(elapsed_when_finished=True)
