"""`dreamvideo evaluate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .options import (
    MAX_SEED,
    CheckpointOption,
    DeviceOption,
    FramesOption,
    HeightOption,
    ImageScaleOption,
    OrderOption,
    StepsOption,
    TextScaleOption,
    WidthOption,
    check_sampling,
    choose_device,
)
from .reporting import progress_bar, reported


def evaluate(
    clips: Annotated[int, typer.Option(help="How many scenes that nobody trained on.")] = 100,
    world: Annotated[str, typer.Option(help="What is measured on: sprites.")] = "sprites",
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    checkpoint: CheckpointOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    frames: FramesOption = None,
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    order: OrderOption = "text_first",
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    sheets: Annotated[Path | None, typer.Option(help="Folder for pictures of the best, median and worst clips.")] = None,
    device: DeviceOption = None,
) -> None:
    """Count how well a model keeps the picture and follows the sentence, in every mode."""
    with reported():
        from ..checks import InputError, check_choice, check_number
        from ..evaluation.protocol import MODES, Protocol, measure
        from ..evaluation.report import as_table, summary, write_json, write_sheets
        from ..pipeline import SHIPPED, Pipeline

        check_choice("--world", world, ("sprites",))
        check_number("--clips", clips, 1, float("inf"))
        check_number("--seed", seed, 0, MAX_SEED - clips)  # the noise of every batch has a seed of its own
        check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        if frames is not None:
            check_number("--frames", frames, 2, float("inf"))
        if json is not None and json.is_dir():
            raise InputError(f"--json is {str(json)!r}, which is a folder; name a file")
        if sheets is not None and sheets.exists() and not sheets.is_dir():
            raise InputError(f"--sheets is {str(sheets)!r}, which is a file; name a folder")
        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, choose_device(device))
        modes = MODES if pipeline.model.retention is not None else ("t2v",)
        if sheets is not None and modes != MODES:
            raise InputError(f"--sheets is given, but {path.name} has no retention branch to show; leave --sheets out")
        given = {
            "width": width,
            "height": height,
            "num_frames": frames,
            "steps": steps,
            "text_scale": text_scale,
            "image_scale": image_scale,
        }
        chosen = asdict(pipeline.config.sampling) | {k: v for k, v in given.items() if v is not None}
        protocol = Protocol(clips=clips, seed=seed, order=order, modes=modes, **chosen)
        with progress_bar() as bar:
            task = bar.add_task("measuring", total=clips)
            measured = measure(pipeline, protocol, lambda done: bar.update(task, completed=done))
        report = summary(measured, protocol, path.name)
        Console().print(as_table(report))
        if json is not None:
            write_json(report, json)
        if sheets is not None:
            for sheet in write_sheets(measured, sheets):
                typer.echo(sheet)
