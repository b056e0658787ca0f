"""`dreamvideo evaluate` without a data set: measuring a model on the small world by its own protocol."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from ..common.checks import MAX_SEED, InputError, check_choice, check_number
from . import options
from .reporting import progress_bar


def measure_world(
    *,
    sampling: options.SamplingOptions,
    clips: int = 100,
    world: str = "sprites",
    seed: int = 0,
    checkpoint: Path | None = None,
    json: Path | None = None,
    sheets: Path | None = None,
    chain: int | None = None,
    anchor: bool = False,
    device: str | None = None,
    dtype: str = options.AUTO,
) -> None:
    """Measure how well a model keeps the picture and follows the sentence, in every mode or along a chain."""
    from ..evaluation.chain import ChainProtocol, measure_chains
    from ..evaluation.protocol import Protocol, measure, modes_of
    from ..evaluation.report import as_chain_table, as_table, chain_summary, summary, write_json, write_sheets
    from ..sampling.pipeline import SHIPPED, Pipeline

    check_choice("--world", world, ("sprites",))
    check_number("--clips", clips, 1)
    check_number("--seed", seed, 0, MAX_SEED - clips)  # later batches add to it
    sampling.check(least_frames=2)
    options.check_file("--json", json)
    options.check_folder("--sheets", sheets)
    if chain is not None and sheets is not None:
        raise InputError("--sheets shows single clips; leave it or --chain out")
    if anchor and chain is None:
        raise InputError("--anchor belongs to chains; give --chain too, or leave it out")
    path = checkpoint or SHIPPED
    pipeline = Pipeline.load(path, options.choose_device(device), options.choose_precision(dtype))
    modes = modes_of(pipeline.config, path.name)
    if not pipeline.config.takes_image and (sheets is not None or chain is not None):
        option = "--sheets" if sheets is not None else "--chain"
        raise InputError(f"{option} is given, but {path.name} has no retention branch to show; leave {option} out")
    shared = {"seed": seed, **sampling.with_defaults(pipeline.config)}
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=clips)

        def advance(done: int) -> None:
            bar.update(task, completed=done)

        if chain is not None:
            chains = ChainProtocol(chains=clips, stages=chain, anchor=anchor, **shared)
            report = chain_summary(measure_chains(pipeline, chains, advance), chains, path.name)
        else:
            protocol = Protocol(clips=clips, modes=modes, **shared)
            measured = measure(pipeline, protocol, advance)
            report = summary(measured, protocol, path.name)
    report["dtype"] = options.precision_name(pipeline.model.dtype)
    Console().print(as_table(report) if chain is None else as_chain_table(report))
    if json is not None:
        write_json(report, json)
    if sheets is not None:
        for sheet in write_sheets(measured, sheets):
            typer.echo(sheet)
