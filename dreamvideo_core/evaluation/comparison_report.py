"""What a comparison found, as a table, as JSON, as Markdown and as one HTML page.

The paper's figures stand in columns and rows of their own: they are of other clips, and mostly of other networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean
from string import Template

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from ..common.files import write_text
from ..media.grid import clip_grid
from ..media.plot import COLOURS, Curve, frame_plot
from .clips import REFERENCE, read_shaped
from .comparison import CURVES, METRICS, Comparison, Judges, Row
from .inline import inline_clip, inline_picture
from .metrics import measure_interval
from .paper import COLUMNS, PRINTED, Printed

_PAGE = Path(__file__).with_name("comparison_page.html")
_SHOWN = 3  # best clips, and as many worst ones
_OF_SET = ("fvd", "is")
_ORDERED_BY = ("fff_ssim", "fff_clip", "clipsim")  # the first that was measured tells good clips from bad ones


@dataclass(frozen=True)
class _Printing:
    """How the paper prints a metric."""

    label: str
    digits: int
    factor: float = 1.0


_PRINTING = {
    "fvd": _Printing("FVD ↓", 3),
    "is": _Printing("IS ↑", 2),
    "clipsim": _Printing("CLIP-SIM x 100 ↑", 2, 100.0),
    "fff_clip": _Printing("FFF_CLIP ↑", 3),
    "fff_ssim": _Printing("FFF_SSIM ↑", 3),
}


def summary(rows: Sequence[Row], comparison: Comparison, judges: Judges, protocol: Mapping[str, str]) -> dict:
    """All figures with 95 % intervals for measures of single clips; `protocol` says the choices in words."""
    return {
        "protocol": {**protocol, **_choices(comparison, judges)},
        "notes": _notes(comparison, judges),
        "clips": len(comparison.names),
        "metrics": [name for name in METRICS if name in comparison.metrics],
        "rows": [_figures(row) for row in rows],
        "names": list(comparison.names),
    }


def _choices(comparison: Comparison, judges: Judges) -> dict[str, str]:
    found = {"clips": str(len(comparison.names)), "measured at": f"{comparison.shape}, the first of each clip"}
    if judges.fvd:
        found["FVD's features"] = f"{judges.fvd.name}, {judges.fvd.outputs} values a clip"
    if judges.inception:
        found["IS's labels"] = f"{judges.inception.name}, {judges.inception.outputs} labels, all clips in one group"
    if judges.clip:
        found["CLIP"] = f"{judges.clip.name}, {judges.clip.side} x {judges.clip.side}; CLIP-SIM is averaged over all frames"
    return found


def _notes(comparison: Comparison, judges: Judges) -> list[str]:
    count, notes = len(comparison.names), []
    if judges.fvd:
        notes.append(
            f"FVD is of {count} clips against {count} true ones. It falls with more clips: compare equal numbers only."
        )
        if count <= judges.fvd.outputs:
            notes.append(
                f"There are fewer clips ({count}) than FVD needs for its {judges.fvd.outputs} features: the covariances are "
                f"singular, and FVD sees {count - 1} directions of them only."
            )
    if judges.inception:
        notes.append(f"IS is of {count} clips and at most {min(count, judges.inception.outputs)}; it grows with more clips.")
    return notes


def _figures(row: Row) -> dict:
    of_clips = {}
    for name, values in row.of_clips.items():
        low, high = measure_interval(values)
        of_clips[name] = {"mean": fmean(values), "low": low, "high": high, "values": values}
    return {"label": row.label, **row.of_set, **of_clips, "curves": row.curves}


def as_table(report: dict) -> Table:
    """Ours alone, a row a set."""
    table = Table(box=SIMPLE_HEAD, title=f"{report['clips']} clips, measured at {report['protocol']['measured at']}")
    table.add_column("clips of", overflow="fold")
    for name in report["metrics"]:
        table.add_column(_PRINTING[name].label, justify="right")
    for row in report["rows"]:
        table.add_row(row["label"], *(_cell(row, name) for name in report["metrics"]))
    said = [f"{what}: {choice}" for what, choice in report["protocol"].items()]
    table.caption_justify = "left"
    table.caption = "\n".join(["After ±: half of the 95 % interval over clips.", *report["notes"], *said])
    return table


def as_markdown(report: dict) -> str:
    """The table in the paper's layout, and what is to be known of it."""
    said = [f"- {what}: {choice}" for what, choice in report["protocol"].items()]
    return "\n".join([markdown_table(report), "", _LEGEND, "", *said, *(f"- {note}" for note in report["notes"]), ""])


def markdown_table(report: dict, printed: Sequence[Printed] = PRINTED) -> str:
    """Our columns, then those of the paper that `printed` has, filled in its own rows alone."""
    head, rows = _paper_layout(report, printed)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


_LEGEND = (
    "After ±: half of the 95 % interval over clips. Columns of the paper: as printed in Tables 1 and 2 of arXiv 2312.03018, on "
    "other clips, prompts and networks than ours; they are no comparison with our columns."
)


def _paper_layout(report: dict, printed: Sequence[Printed] = PRINTED) -> tuple[list[str], list[list[str]]]:
    ours, columns = report["metrics"], [column for column in COLUMNS if any(column in row.values for row in printed)]
    head = ["method", *(_PRINTING[name].label for name in ours)]
    head += [f"paper: {data} {_PRINTING[name].label}" for data, name in columns]
    rows = [[row["label"], *(_cell(row, name) for name in ours), *[""] * len(columns)] for row in report["rows"]]
    for row in printed:
        values = [_printed(row.values[c], c[1]) if c in row.values else "" for c in columns]
        rows.append([f"paper, Table {row.table}: {row.method}", *[""] * len(ours), *values])
    return head, rows


def _cell(row: Mapping, name: str) -> str:
    if name not in row:
        return ""
    printing = _PRINTING[name]
    if name in _OF_SET:
        return f"{row[name]:.{printing.digits}f}"
    half = (row[name]["high"] - row[name]["low"]) / 2
    return f"{row[name]['mean'] * printing.factor:.{printing.digits}f} ±{half * printing.factor:.{printing.digits}f}"


def _printed(value: float, name: str) -> str:
    return f"{value * _PRINTING[name].factor:.2f}"


def write_report(report: dict, comparison: Comparison, folder: Path) -> list[Path]:
    """table.md and index.html, which holds its pictures: the table, curves over frames, the best and the worst clips."""
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{report['clips']} clips, {report['protocol']['measured at']}"),
        protocol="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report["protocol"].items()),
        notes="".join(f"<li>{escape(note)}</li>" for note in report["notes"]),
        table=_html_table(report),
        legend=escape(_LEGEND),
        curves="".join(
            f"<figure><img src='{address}' alt=''><figcaption>{said}</figcaption></figure>" for said, address in _plots(report)
        ),
        clips="".join(_clips_of(row, comparison) for row in report["rows"] if row["label"] != REFERENCE),
    )
    paths = [folder / "table.md", folder / "index.html"]
    for path, text in zip(paths, (as_markdown(report), page), strict=True):
        write_text(path, text)
    return paths


def _html_table(report: dict) -> str:
    head, rows = _paper_layout(report)
    first_printed = 1 + len(report["metrics"])

    def line(cells: list[str], tag: str) -> str:
        kinds = ["" if place < first_printed else " class='paper'" for place in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{kind}>{escape(c)}</{tag}>" for c, kind in zip(cells, kinds, strict=True)) + "</tr>"

    return f"<thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody>"


def _plots(report: dict) -> list[tuple[str, str]]:
    """Captions and pictures: the curves of some sets and, in each picture, of the true clips."""
    plots = []
    for name, caption in CURVES.items():
        curves = {row["label"]: row["curves"][name] for row in report["rows"] if name in row["curves"]}
        true = [Curve(REFERENCE, curves.pop(REFERENCE))] if REFERENCE in curves else []
        drawn = [Curve(label, values) for label, values in curves.items()]
        at_once = len(COLOURS) - len(true)
        for start in range(0, len(drawn), at_once):
            plots.append((f"{caption}, mean over clips", inline_picture(frame_plot(drawn[start : start + at_once] + true)[0])))
    return plots


def _clips_of(row: Mapping, comparison: Comparison) -> str:
    """The best and the worst clips of a set beside the true ones."""
    name = next((name for name in _ORDERED_BY if name in row), None)
    if name is None:
        return ""
    order = torch.tensor(row[name]["values"]).argsort(descending=True).tolist()
    best, worst = order[:_SHOWN], order[_SHOWN:][: -_SHOWN - 1 : -1]
    paths = next(clips.paths for clips in comparison.sets if clips.label == row["label"])
    parts = []
    for said, places in (("best", best), ("worst", worst)):
        figures = "".join(_figure(place, row[name]["values"][place], name, paths, comparison) for place in places)
        if figures:
            parts.append(
                f"<h3>{escape(row['label'])}: {said} by {escape(_PRINTING[name].label)}</h3><div class='clips'>{figures}</div>"
            )
    return "".join(parts)


def _figure(place: int, value: float, metric: str, paths: Mapping[str, Path], comparison: Comparison) -> str:
    name = comparison.names[place]
    frames: list[Tensor] = [read_shaped(paths[name], comparison.shape)]
    titles = ["made"]
    if comparison.reference:
        frames.insert(0, read_shaped(comparison.reference.paths[name], comparison.shape))
        titles.insert(0, "true")
    printing = _PRINTING[metric]
    said = f"{name} ({value * printing.factor:.{printing.digits}f}) {comparison.captions.get(name, '')}"
    address = inline_clip(clip_grid(frames, titles))
    return f"<figure><img src='{address}' alt=''><figcaption>{escape(said)}</figcaption></figure>"
