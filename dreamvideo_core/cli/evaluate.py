"""`dreamvideo evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import options
from .reporting import progress_bar, reported


def evaluate(
    clips: Annotated[int, typer.Option(help="How many scenes that nobody trained on, or chains.")] = 100,
    world: Annotated[str, typer.Option(help="What is measured on: sprites.")] = "sprites",
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    checkpoint: options.Checkpoint = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    steps: options.Steps = None,
    text_scale: options.TextScale = None,
    image_scale: options.ImageScale = None,
    order: options.Order = "text_first",
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    sheets: Annotated[Path | None, typer.Option(help="Folder for pictures of the best, median and worst clips.")] = None,
    chain: Annotated[int | None, typer.Option(help="Measure chains of so many stages.", show_default="single clips")] = None,
    anchor: options.Anchor = False,
    device: options.Device = None,
) -> None:
    """Count how well a model keeps the picture and follows the sentence, in every mode or along a chain."""
    with reported():
        from ..checks import InputError, check_choice, check_number
        from ..evaluation.chain import ChainProtocol, measure_chains
        from ..evaluation.protocol import MODES, Protocol, measure
        from ..evaluation.report import as_chain_table, as_table, chain_summary, summary, write_json, write_sheets
        from ..pipeline import SHIPPED, Pipeline

        check_choice("--world", world, ("sprites",))
        check_number("--clips", clips, 1, float("inf"))
        check_number("--seed", seed, 0, options.MAX_SEED - clips)  # the noise of every batch has a seed of its own
        options.check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        if frames is not None:
            check_number("--frames", frames, 2, float("inf"))
        if json is not None and json.is_dir():
            raise InputError(f"--json is {str(json)!r}, which is a folder; name a file")
        if sheets is not None and sheets.exists() and not sheets.is_dir():
            raise InputError(f"--sheets is {str(sheets)!r}, which is a file; name a folder")
        if chain is not None and sheets is not None:
            raise InputError("--sheets shows single clips; leave it or --chain out")
        if anchor and chain is None:
            raise InputError("--anchor belongs to chains; give --chain too, or leave it out")
        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, options.choose_device(device))
        has_branch = pipeline.model.retention is not None
        if not has_branch and (sheets is not None or chain is not None):
            option = "--sheets" if sheets is not None else "--chain"
            raise InputError(f"{option} is given, but {path.name} has no retention branch to show; leave {option} out")
        sampling = options.with_defaults(pipeline.config.sampling, width, height, frames, steps, text_scale, image_scale)
        shared = {"seed": seed, "order": order, **sampling}
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=clips)

            def advance(done: int) -> None:
                bar.update(task, completed=done)

            if chain is not None:
                chains = ChainProtocol(chains=clips, stages=chain, anchor=anchor, **shared)
                report = chain_summary(measure_chains(pipeline, chains, advance), chains, path.name)
            else:
                protocol = Protocol(clips=clips, modes=MODES if has_branch else ("t2v",), **shared)
                measured = measure(pipeline, protocol, advance)
                report = summary(measured, protocol, path.name)
        Console().print(as_table(report) if chain is None else as_chain_table(report))
        if json is not None:
            write_json(report, json)
        if sheets is not None:
            for sheet in write_sheets(measured, sheets):
                typer.echo(sheet)
