"""`dreamvideo train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .reporting import ERRORS, reported


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe that ships (sprites), or path of a .toml file.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="runs/NAME"),
    ] = None,
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
        from ..checks import InputError, check_number
        from ..training.recipe import load_recipe
        from ..training.run import run_recipe

        if minutes is not None:
            check_number("--minutes", minutes, 0, float("inf"))
        loaded = load_recipe(recipe)
        folder = output or Path("runs") / loaded.name
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output is {str(folder)!r}, which is a file; name a folder")
        if start and not start.is_file():
            raise InputError(f"--start is {str(start)!r}, which is no file; give a DreamVideo .safetensors file")
        result = run_recipe(loaded, folder, start=start, resume=resume, minutes=minutes)
        if result is None:
            ERRORS.print(f"time is up; the same command with --resume goes on with {folder}")
        else:
            typer.echo(result)
