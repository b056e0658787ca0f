"""The options of `dreamvideo evaluate` for the paper's metrics: which ones, their networks, and the reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..common.checks import InputError, check_choice
from . import options
from .reporting import progress_bar

if TYPE_CHECKING:
    import torch

    from ..evaluation.clips import ClipShape
    from ..evaluation.comparison import Comparison, MetricNetworks


def split_words(option: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """The words of a list such as "fvd,is", each once. Raises `InputError` for a word that is not allowed."""
    chosen = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in chosen:
        check_choice(option, name, allowed)
    return chosen


@dataclass(frozen=True)
class MetricOptions:
    """The options by their names. Call `check` first, then `open`, then `measure`."""

    metrics: str | None = None
    fvd_network: Path | None = None
    is_network: Path | None = None
    clip_folder: Path | None = None
    json: Path | None = None
    report: Path | None = None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The chosen metrics: all of them if `--metrics` is not given."""
        from ..evaluation.comparison import METRICS

        return METRICS if self.metrics is None else split_words("--metrics", self.metrics, METRICS)

    def with_networks(self, path: Path) -> MetricOptions:
        """These options with `path` for the video networks that are not given."""
        return replace(self, fvd_network=self.fvd_network or path, is_network=self.is_network or path)

    def needs(self, names: tuple[str, ...]) -> bool:
        """Whether one of the metrics `names` is chosen."""
        return bool(set(names) & set(self.chosen))

    def check(self) -> None:
        """Raise `InputError` if the reports could not be written, or a metric's network is not given."""
        from ..evaluation.comparison import NEED_CLIP

        options.check_file("--json", self.json)
        options.check_folder("--report", self.report)
        self.check_given("--fvd-network", self.fvd_network, ("fvd",))
        self.check_given("--is-network", self.is_network, ("is",))
        self.check_given("--clip-folder", self.clip_folder, NEED_CLIP)

    def check_given(self, option: str, path: Path | None, needing: tuple[str, ...]) -> None:
        """Raise `InputError` if `path` is not given and one of the metrics `needing` it is chosen."""
        for metric in self.chosen:
            if metric in needing and path is None:
                raise InputError(f"--metrics has {metric}, which needs {option}; give {option}, or leave {metric} out")

    def open(self, shape: ClipShape, device: torch.device) -> MetricNetworks:
        """The networks that the metrics need, tried on an empty clip."""
        from ..evaluation.clip_embedder import ClipEmbedder
        from ..evaluation.comparison import NEED_CLIP, MetricNetworks
        from ..evaluation.networks import open_network

        shape_and_device = {"shape": shape.sizes, "device": device}
        return MetricNetworks(
            open_network(self.fvd_network, "--fvd-network", "features", **shape_and_device) if self.needs(("fvd",)) else None,
            open_network(self.is_network, "--is-network", "logits", **shape_and_device) if self.needs(("is",)) else None,
            ClipEmbedder.load(self.clip_folder, "--clip-folder", device) if self.needs(NEED_CLIP) else None,
        )

    def measure(self, comparison: Comparison, networks: MetricNetworks, protocol: Mapping[str, str]) -> None:
        """Measure, print the table, and write the reports that were asked for."""
        from ..evaluation.comparison import compare
        from ..evaluation.comparison_report import as_table, summary, write_report
        from ..evaluation.report import write_json

        with progress_bar() as bar:
            task = bar.add_task("measuring", total=len(comparison.names) * len(comparison.sets))
            results = compare(comparison, networks, lambda done: bar.update(task, completed=done))
        figures = summary(results, comparison, networks, protocol)
        Console().print(as_table(figures))
        if self.json is not None:
            write_json(figures, self.json)
        if self.report is not None:
            for path in write_report(figures, comparison, self.report):
                typer.echo(path)
