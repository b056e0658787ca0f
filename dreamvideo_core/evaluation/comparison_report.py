"""Reports on a comparison: a table, JSON, Markdown and one HTML page.

The paper's figures have columns and rows of their own: they are of other clips, and mostly of other networks.
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
from .clips import REFERENCE, read_clip_at
from .comparison import CURVES, METRICS, Comparison, MetricNetworks, SetResult
from .inline import inline_clip, inline_picture
from .metrics import measure_interval
from .paper import COLUMNS, PAPER_ROWS, PaperRow

_PAGE = Path(__file__).with_name("comparison_page.html")
_SHOWN = 3  # best clips, and as many worst ones
_OF_SET = ("fvd", "is")
_RANKED_BY = ("fff_ssim", "fff_clip", "clipsim")  # the first of these that was measured ranks the clips


@dataclass(frozen=True)
class _MetricFormat:
    """How the paper prints a metric."""

    label: str
    digits: int
    factor: float = 1.0


_FORMATS = {
    "fvd": _MetricFormat("FVD ↓", 3),
    "is": _MetricFormat("IS ↑", 2),
    "clipsim": _MetricFormat("CLIP-SIM x 100 ↑", 2, 100.0),
    "fff_clip": _MetricFormat("FFF_CLIP ↑", 3),
    "fff_ssim": _MetricFormat("FFF_SSIM ↑", 3),
}


def summary(
    results: Sequence[SetResult], comparison: Comparison, networks: MetricNetworks, protocol: Mapping[str, str]
) -> dict:
    """The report: all figures, with 95 % intervals of per-clip measures; `protocol` describes the caller's choices."""
    return {
        "protocol": {**protocol, **_choices(comparison, networks)},
        "notes": _notes(comparison, networks),
        "clips": len(comparison.names),
        "metrics": [name for name in METRICS if name in comparison.metrics],
        "rows": [_figures(result) for result in results],
        "names": list(comparison.names),
    }


def _choices(comparison: Comparison, networks: MetricNetworks) -> dict[str, str]:
    choices = {"clips": str(len(comparison.names)), "measured at": f"{comparison.shape}, the first of each clip"}
    if networks.fvd:
        choices["FVD's features"] = f"{networks.fvd.name}, {networks.fvd.outputs} values a clip"
    if networks.inception:
        choices["IS's labels"] = f"{networks.inception.name}, {networks.inception.outputs} labels, all clips in one group"
    if networks.clip:
        size = f"{networks.clip.side} x {networks.clip.side}"
        choices["CLIP"] = f"{networks.clip.name}, {size}; CLIP-SIM is averaged over all frames"
    return choices


def _notes(comparison: Comparison, networks: MetricNetworks) -> list[str]:
    count, notes = len(comparison.names), []
    if networks.fvd:
        notes.append(
            f"FVD is of {count} clips against {count} true ones. It falls with more clips: compare equal numbers only."
        )
        if count <= networks.fvd.outputs:
            notes.append(
                f"There are fewer clips ({count}) than FVD needs for its {networks.fvd.outputs} features: the covariances are "
                f"singular, and FVD sees {count - 1} directions of them only."
            )
    if networks.inception:
        notes.append(f"IS is of {count} clips and at most {min(count, networks.inception.outputs)}; it grows with more clips.")
    return notes


def _figures(result: SetResult) -> dict:
    of_clips = {}
    for name, values in result.of_clips.items():
        low, high = measure_interval(values)
        of_clips[name] = {"mean": fmean(values), "low": low, "high": high, "values": values}
    return {"label": result.label, **result.of_set, **of_clips, "curves": result.curves}


def as_table(report: dict) -> Table:
    """The figures of the sets, one row each, without the paper's."""
    table = Table(box=SIMPLE_HEAD, title=f"{report['clips']} clips, measured at {report['protocol']['measured at']}")
    table.add_column("clips of", overflow="fold")
    for name in report["metrics"]:
        table.add_column(_FORMATS[name].label, justify="right")
    for row in report["rows"]:
        table.add_row(row["label"], *(_cell(row, name) for name in report["metrics"]))
    protocol = [f"{what}: {choice}" for what, choice in report["protocol"].items()]
    table.caption_justify = "left"
    table.caption = "\n".join(["After ±: half of the 95 % interval over clips.", *report["notes"], *protocol])
    return table


def as_markdown(report: dict) -> str:
    """The table in the paper's layout, with the protocol and notes."""
    protocol = [f"- {what}: {choice}" for what, choice in report["protocol"].items()]
    return "\n".join([markdown_table(report), "", _LEGEND, "", *protocol, *(f"- {note}" for note in report["notes"]), ""])


def markdown_table(report: dict, paper_rows: Sequence[PaperRow] = PAPER_ROWS) -> str:
    """Our columns and rows, then the paper's. Ours and the paper's figures share no column and no row."""
    head, rows = _paper_layout(report, paper_rows)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


_LEGEND = (
    "After ±: half of the 95 % interval over clips. Columns of the paper: as printed in Tables 1 and 2 of arXiv 2312.03018, on "
    "other clips, prompts and networks than ours; they are no comparison with our columns."
)


def _paper_layout(report: dict, paper_rows: Sequence[PaperRow] = PAPER_ROWS) -> tuple[list[str], list[list[str]]]:
    """The head and the cells of the table."""
    ours, columns = report["metrics"], [column for column in COLUMNS if any(column in row.values for row in paper_rows)]
    head = ["method", *(_FORMATS[name].label for name in ours)]
    head += [f"paper: {data} {_FORMATS[name].label}" for data, name in columns]
    rows = [[row["label"], *(_cell(row, name) for name in ours), *[""] * len(columns)] for row in report["rows"]]
    for row in paper_rows:
        values = [_paper_cell(row.values[c], c[1]) if c in row.values else "" for c in columns]
        rows.append([f"paper, Table {row.table}: {row.method}", *[""] * len(ours), *values])
    return head, rows


def _cell(row: Mapping, name: str) -> str:
    if name not in row:
        return ""
    metric = _FORMATS[name]
    if name in _OF_SET:
        return f"{row[name]:.{metric.digits}f}"
    half = (row[name]["high"] - row[name]["low"]) / 2
    return f"{row[name]['mean'] * metric.factor:.{metric.digits}f} ±{half * metric.factor:.{metric.digits}f}"


def _paper_cell(value: float, name: str) -> str:
    return f"{value * _FORMATS[name].factor:.2f}"


def write_report(report: dict, comparison: Comparison, folder: Path) -> list[Path]:
    """Write table.md, and index.html with the table, curves over frames, and the best and worst clips; returns their paths."""
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"{report['clips']} clips, {report['protocol']['measured at']}"),
        protocol="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report["protocol"].items()),
        notes="".join(f"<li>{escape(note)}</li>" for note in report["notes"]),
        table=_html_table(report),
        legend=escape(_LEGEND),
        curves="".join(
            f"<figure><img src='{url}' alt=''><figcaption>{caption}</figcaption></figure>" for caption, url in _plots(report)
        ),
        clips="".join(_ranked_clips(row, comparison) for row in report["rows"] if row["label"] != REFERENCE),
    )
    paths = [folder / "table.md", folder / "index.html"]
    for path, text in zip(paths, (as_markdown(report), page), strict=True):
        write_text(path, text)
    return paths


def _html_table(report: dict) -> str:
    head, rows = _paper_layout(report)
    first_of_paper = 1 + len(report["metrics"])

    def line(cells: list[str], tag: str) -> str:
        classes = ["" if column < first_of_paper else " class='paper'" for column in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{cls}>{escape(c)}</{tag}>" for c, cls in zip(cells, classes, strict=True)) + "</tr>"

    return f"<thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody>"


def _plots(report: dict) -> list[tuple[str, str]]:
    """Captions and pictures' data URLs. A plot holds few curves, so the sets are spread; each has the true clips' curve."""
    plots = []
    for name, caption in CURVES.items():
        curves = {row["label"]: row["curves"][name] for row in report["rows"] if name in row["curves"]}
        true = [Curve(REFERENCE, curves.pop(REFERENCE))] if REFERENCE in curves else []
        drawn = [Curve(label, values) for label, values in curves.items()]
        per_plot = len(COLOURS) - len(true)
        for start in range(0, len(drawn), per_plot):
            plots.append((f"{caption}, mean over clips", inline_picture(frame_plot(drawn[start : start + per_plot] + true)[0])))
    return plots


def _ranked_clips(row: Mapping, comparison: Comparison) -> str:
    """The best and the worst clips of a set beside the true ones, as HTML."""
    metric = next((name for name in _RANKED_BY if name in row), None)
    if metric is None:
        return ""
    values = row[metric]["values"]
    order = torch.tensor(values).argsort(descending=True).tolist()
    best, worst = order[:_SHOWN], order[_SHOWN:][: -_SHOWN - 1 : -1]
    paths = next(clips.paths for clips in comparison.sets if clips.label == row["label"])
    html = ""
    for rank, indices in (("best", best), ("worst", worst)):
        figures = "".join(_figure(index, values[index], metric, paths, comparison) for index in indices)
        if figures:
            title = f"{escape(row['label'])}: {rank} by {escape(_FORMATS[metric].label)}"
            html += f"<h3>{title}</h3><div class='clips'>{figures}</div>"
    return html


def _figure(index: int, value: float, metric: str, paths: Mapping[str, Path], comparison: Comparison) -> str:
    name = comparison.names[index]
    frames: list[Tensor] = [read_clip_at(paths[name], comparison.shape)]
    titles = ["made"]
    if comparison.reference:
        frames.insert(0, read_clip_at(comparison.reference.paths[name], comparison.shape))
        titles.insert(0, "true")
    shown = f"{value * _FORMATS[metric].factor:.{_FORMATS[metric].digits}f}"
    caption = f"{name} ({shown}) {comparison.captions.get(name, '')}"
    url = inline_clip(clip_grid(frames, titles))
    return f"<figure><img src='{url}' alt=''><figcaption>{escape(caption)}</figcaption></figure>"
