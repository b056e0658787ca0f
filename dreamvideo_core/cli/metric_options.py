"""What the two parts of `dreamvideo evaluate` that use the paper's metrics share: which ones, what looks, what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from . import options
from .reporting import progress_bar

if TYPE_CHECKING:
    import torch

    from ..evaluation.clips import Shape
    from ..evaluation.comparison import Comparison, Judges


def words(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list such as "fvd,is", each once and each allowed."""
    from ..common.checks import check_choice

    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        check_choice(option, name, allowed)
    return chosen


@dataclass(frozen=True)
class Judging:
    """The options by their names, as they are typed; `check` first, then `open`, and `measure` in the end."""

    metrics: str | None = None
    fvd_network: Path | None = None
    is_network: Path | None = None
    clip_folder: Path | None = None
    json: Path | None = None
    report: Path | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The metrics; all of them where none is named."""
        from ..evaluation.comparison import METRICS

        return METRICS if self.metrics is None else words("--metrics", self.metrics, METRICS)

    def with_networks(self, path: Path) -> Judging:
        """The same with `path` for the networks that are not named."""
        return replace(self, fvd_network=self.fvd_network or path, is_network=self.is_network or path)

    def needs(self, names: tuple[str, ...]) -> bool:
        """Whether one of the metrics `names` is asked for."""
        return bool(set(names) & set(self.chosen))

    def check(self) -> None:
        """The figures can be written, and every metric's network is named."""
        from ..evaluation.comparison import NEED_CLIP

        options.check_file("--json", self.json)
        options.check_folder("--report", self.report)
        self.check_given("--fvd-network", self.fvd_network, ("fvd",))
        self.check_given("--is-network", self.is_network, ("is",))
        self.check_given("--clip-folder", self.clip_folder, NEED_CLIP)

    def check_given(self, option: str, path: Path | None, needing: tuple[str, ...]) -> None:
        """`path` is there where one of the metrics `needing` it is asked for."""
        from ..common.checks import InputError

        for metric in self.chosen:
            if metric in needing and path is None:
                raise InputError(f"--metrics has {metric}, which needs {option}; give {option}, or leave {metric} out")

    def open(self, shape: Shape, device: torch.device) -> Judges:
        """What the metrics need, opened and tried on an empty clip."""
        from ..evaluation.clip_scores import ClipScorer
        from ..evaluation.comparison import NEED_CLIP, Judges
        from ..evaluation.networks import open_network

        network = {"shape": shape.sizes, "device": device}
        return Judges(
            open_network(self.fvd_network, "--fvd-network", "features", **network) if self.needs(("fvd",)) else None,
            open_network(self.is_network, "--is-network", "logits", **network) if self.needs(("is",)) else None,
            ClipScorer.load(self.clip_folder, "--clip-folder", device) if self.needs(NEED_CLIP) else None,
        )

    def measure(self, comparison: Comparison, judges: Judges, protocol: Mapping[str, str]) -> None:
        """Measure, print what was found, and write the files that were asked for."""
        from ..evaluation.comparison import compare
        from ..evaluation.comparison_report import as_table, summary, write_report
        from ..evaluation.report import write_json

        with progress_bar() as bar:
            task = bar.add_task("measuring", total=len(comparison.names) * len(comparison.sets))
            rows = compare(comparison, judges, lambda done: bar.update(task, completed=done))
        found = summary(rows, comparison, judges, protocol)
        Console().print(as_table(found))
        if self.json is not None:
            write_json(found, self.json)
        if self.report is not None:
            for path in write_report(found, comparison, self.report):
                typer.echo(path)
