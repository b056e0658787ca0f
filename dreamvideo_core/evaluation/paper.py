"""The figures that the paper (arXiv 2312.03018) prints in Tables 1 to 3. They are of other clips than ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The columns of a report: data set and metric.
COLUMNS = (
    ("UCF101", "fvd"), ("UCF101", "is"), ("UCF101", "fff_clip"), ("UCF101", "fff_ssim"),
    ("MSR-VTT", "fvd"), ("MSR-VTT", "is"), ("MSR-VTT", "fff_clip"), ("MSR-VTT", "fff_ssim"), ("MSR-VTT", "clipsim"),
)  # fmt: skip


@dataclass(frozen=True)
class PaperRow:
    """A row of Table 1 or 2, by `COLUMNS`; CLIP-SIM is on a scale of -1 to 1."""

    method: str
    table: int
    values: Mapping[tuple[str, str], float]


def _table_1(method: str, *values: float) -> PaperRow:
    return PaperRow(method, 1, dict(zip(COLUMNS[:8], values, strict=True)))


def _table_2(method: str, ucf_fvd: float, ucf_is: float, fvd: float, score: float, clipsim: float) -> PaperRow:
    columns = (("UCF101", "fvd"), ("UCF101", "is"), ("MSR-VTT", "fvd"), ("MSR-VTT", "is"), ("MSR-VTT", "clipsim"))
    return PaperRow(method, 2, dict(zip(columns, (ucf_fvd, ucf_is, fvd, score, clipsim / 100), strict=True)))


PAPER_ROWS = (
    _table_1("I2VGen-XL", 526.94, 18.90, 0.68, 0.17, 341.72, 10.52, 0.57, 0.17),
    _table_1("VideoCrafter1", 297.62, 50.88, 0.79, 0.22, 201.46, 14.41, 0.74, 0.24),
    _table_1("DreamVideo", 197.66, 54.39, 0.76, 0.37, 149.18, 15.25, 0.74, 0.36),
    _table_2("DreamVideo T2V", 463.76, 22.82, 250.80, 10.90, 20.97),
    _table_2("DreamVideo TI2V", 214.52, 46.31, 167.80, 13.43, 20.55),
)
# Table 3, the user study: mean ratings of fidelity, alignment and quality, from 1 to 5.
RATINGS = {"I2VGen-XL": (3.64, 4.04, 3.80), "VideoCrafter1": (3.95, 4.23, 3.92), "DreamVideo": (4.17, 4.28, 3.88)}
RATED_CLIPS, RATERS = 30, 10
