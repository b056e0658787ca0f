"""`dreamvideo train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..common.checks import InputError, check_number
from . import options
from .reporting import ERRORS, progress_bar, reported

if TYPE_CHECKING:
    from ..training.recipe import Recipe


def train(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe that ships (sprites, paper, single_gpu_24gb), or path of a .toml file.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="runs/NAME"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Videos to train on: a folder (clip.mp4, clip.txt), a .csv or .jsonl of paths and captions, a .tar shard or a "
            "folder of shards.",
            show_default="the recipe's",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of the recipe, or PHASE.KEY=VALUE of a phase; the value as in TOML."
        ),
    ] = None,
    check_data: Annotated[
        bool, typer.Option("--check-data", help="Look at the videos, say what is found, and train nothing.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="A DreamVideo .safetensors file for the first phase to begin with.", show_default="fresh weights"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that the folder holds.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(help="Stop after so long; --resume goes on.", show_default="until it is done"),
    ] = None,
) -> None:
    """Train a model by a recipe, phase by phase."""
    with reported():
        from ..training.recipe_files import load_recipe
        from ..training.run import run_recipe

        if minutes is not None:
            check_number("--minutes", minutes, 0)
        loaded = load_recipe(recipe, change or (), data)
        folder = output or Path("runs") / loaded.name
        options.check_folder("--output", folder)
        if start and not start.is_file():
            raise InputError(f"--start is {str(start)!r}, which is no file; give a DreamVideo .safetensors file")
        if check_data:
            return _check_data(loaded, folder)
        result = run_recipe(loaded, folder, start=start, resume=resume, minutes=minutes)
        if result is None:
            ERRORS.print(f"time is up; the same command with --resume goes on with {folder}")
        else:
            typer.echo(result)


def _check_data(recipe: Recipe, folder: Path) -> None:
    """Report on the videos of the first phase that has any."""
    from ..training.data.listing import list_clips
    from ..training.data.survey import survey
    from ..training.data.survey_report import as_table, on_sheet, write_findings
    from ..training.data.videos import VideoSource
    from ..training.recipe import SPRITES

    phases = [phase for phase in recipe.phases if phase.data != SPRITES]
    if not phases:
        raise InputError(f"--check-data looks at videos, and recipe {recipe.name} has sprites alone; give --data")
    source = VideoSource(list_clips(phases[0].data), phases[0], phases[0].sizes[0], recipe.seed)
    with progress_bar() as bar:
        task = bar.add_task("looking at windows of clips", total=len(source))
        findings = survey(source, on_sheet(source), lambda: bar.update(task, advance=1))
    Console().print(as_table(findings, source))
    for path in write_findings(findings, folder):
        typer.echo(path)
