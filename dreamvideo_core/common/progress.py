"""The look of progress bars."""

from __future__ import annotations

from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn


def columns(amount: ProgressColumn) -> tuple[ProgressColumn, ...]:
    """Description, bar, `amount`, and the time that is left or, at the end, that was taken."""
    return TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn(elapsed_when_finished=True)
