"""Reports on a survey: a table, a line of JSON per window, and a contact sheet."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...common.files import atomic, json_lines, write_text
from ...media.grid import clip_grid, film_strip
from ...media.images import to_picture
from .held_out import choose_held_out
from .survey import Finding
from .videos import VideoSource

ON_SHEET = 24
_NAMED = 3  # at most so many clips of a kind are named in the table
_SHEET_COLUMNS = 3


def on_sheet(source: VideoSource) -> set[int]:
    """The numbers of the windows that the sheet shows, evenly spread over the data set."""
    count = min(ON_SHEET, len(source))
    return {round(number) for number in np.linspace(0, len(source) - 1, count)}


def as_table(findings: Sequence[Finding], source: VideoSource) -> Table:
    """What the data set holds and which clips need a look, with some of their names."""
    phase, (height, width) = source.phase, source.size
    table = Table(
        box=SIMPLE_HEAD,
        title=f"{phase.data}: windows of {phase.num_frames} frames, stride {phase.stride}, at {width} x {height}",
    )
    table.add_column("what", no_wrap=True)
    table.add_column("found", justify="right")
    table.add_column("")
    for cells in (*_counts(findings, source), *_properties(findings, height, width)):
        table.add_row(*cells)
    table.caption = "Watermarks, borders and subtitles are learned too: look for them on the sheet."
    return table


def _counts(findings: Sequence[Finding], source: VideoSource) -> Iterator[tuple[str, str, str]]:
    """Rows of the table that count clips; a clip belongs to a kind if any of its windows does."""
    phase = source.phase
    usable = [number for number, finding in enumerate(findings) if not finding.unusable]
    files = list(dict.fromkeys(map(source.file_of, usable)))
    yield "clips", str(len(source.files)), ""
    yield "can be used", str(len(files)), ""
    if phase.windows > 1:
        alike = len(usable) - len({(findings[n].name, findings[n].start) for n in usable})
        yield "windows of these", str(len(usable)), f"{alike} begin where another does" if alike else ""
    held_out = [source.files[file].name for file in choose_held_out(files, phase.held_out, source.seed)]
    yield "held out for samples", str(len(held_out)), _some(held_out)
    for what, chosen in _kinds(findings).items():
        names = list(dict.fromkeys(finding.name for finding in chosen))
        yield what, str(len(names)), _some(names)


def _properties(findings: Sequence[Finding], height: int, width: int) -> Iterator[tuple[str, str, str]]:
    """Rows of the table about all videos that could be read."""
    videos = list({f.name: f.info for f in findings if f.info}.values())
    if not videos:
        return
    yield "frames", "", _spread([v.frames for v in videos])
    yield "seconds", "", _spread([v.frames / v.fps for v in videos if v.fps])
    yield "sizes", "", _commonest(f"{v.width} x {v.height}" for v in videos)
    yield "frames a second", "", _commonest(f"{v.fps:.3g}" for v in videos)
    smaller = sum(v.height < height or v.width < width for v in videos)
    yield "smaller than the clips", str(smaller), "they are enlarged" if smaller else ""


def _kinds(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    return {
        "too short": [f for f in findings if f.unusable and f.info],
        "broken": [f for f in findings if f.unusable and not f.info],
        "nothing moves": [f for f in findings if f.is_static],
        "with a scene cut": [f for f in findings if f.has_cut],
        "without a caption": [f for f in findings if not f.caption],
    }


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "unknown"
    return f"{min(values):.4g} to {max(values):.4g}, median {statistics.median(values):.4g}"


def _commonest(values: Iterable[str]) -> str:
    counts = Counter(values)
    return ", ".join(f"{value} ({count})" for value, count in counts.most_common(_NAMED)) + (
        ", ..." if len(counts) > _NAMED else ""
    )


def write_findings(findings: Sequence[Finding], folder: Path) -> list[Path]:
    """Write check.jsonl, one line per window, and check.png, three frames of some windows; returns their paths."""
    lines, sheet = folder / "check.jsonl", folder / "check.png"
    write_text(lines, json_lines(_line(f) for f in findings))
    shown = [f for f in findings if f.window is not None]
    if not shown:
        return [lines]
    strips = [film_strip(f.window, (0, len(f.window) // 2, -1)) for f in shown]
    grid = clip_grid(strips, [f"{f.name}: {f.caption}" for f in shown], _SHEET_COLUMNS)
    with atomic(sheet) as temporary:
        to_picture(grid[0]).save(temporary)
    return [lines, sheet]


def _line(finding: Finding) -> dict:
    clip = {"clip": finding.name, "caption": finding.caption, **(asdict(finding.info) if finding.info else {})}
    if finding.unusable:
        return {**clip, "unusable": finding.unusable}
    moves = {"start": finding.start, "motion": round(finding.motion, 2), "jump": round(finding.jump, 3)}
    return {**clip, **moves, "static": finding.is_static, "cut": finding.has_cut}
