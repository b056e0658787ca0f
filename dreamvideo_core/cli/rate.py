"""`dreamvideo rate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..common.checks import MAX_SEED, InputError, check_number
from . import options
from .reporting import progress_bar, reported


def rate(
    paths: Annotated[list[Path], typer.Argument(help="Folders of clips, one a model; with --results what raters saved.")],
    captions: Annotated[Path | None, typer.Option(help=".csv or .jsonl with the columns path and caption.")] = None,
    output: Annotated[Path | None, typer.Option(help="The page to write, .html.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures that clips were made from.")] = None,
    clips: Annotated[int | None, typer.Option(help="So many of the captions, drawn by the seed.", show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Of the order.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second of clips that are folders of PNGs.")] = 8.0,
    key: Annotated[Path | None, typer.Option(help="Which model made which clip.", show_default="beside the page")] = None,
    results: Annotated[bool, typer.Option("--results", help="Print the mean ratings of each model.")] = False,
) -> None:
    """Make a page on which people rate the clips of several models blindly, or print what they said (the paper's Table 3)."""
    with reported():
        if results:
            _check_only_results(captions=captions, output=output, images=images, clips=clips)
            _print_results(paths, key)
        else:
            _make_sheet(paths, captions, output, images, clips, seed, fps, key)


def _check_only_results(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} is for making a page; leave it or --results out")


def _print_results(paths: list[Path], key: Path | None) -> None:
    from ..evaluation.rating import as_table, model_scores, read_key, read_ratings

    if key is None:
        raise InputError("--results is given without --key; give the key that was written beside the page")
    sheet_key = read_key(key)
    # *.json on the command line may name the key as well.
    saved = [path for path in paths if path.absolute() != key.absolute()]
    Console().print(as_table(model_scores(read_ratings(saved, sheet_key), sheet_key)))


def _make_sheet(
    folders: list[Path],
    captions: Path | None,
    output: Path | None,
    images: Path | None,
    clips: int | None,
    seed: int,
    fps: float,
    key: Path | None,
) -> None:
    from ..evaluation.captions import read_captions
    from ..evaluation.rating_sheet import find_pictures, shuffled_clips, write_sheet

    for name, value in (("--captions", captions), ("--output", output)):
        if value is None:
            raise InputError(f"{name} is not given; a page needs it (saved ratings are read with --results)")
    if output.suffix.lower() != ".html" or output.is_dir():
        raise InputError(f"--output is {str(output)!r}; allowed: a file that ends in .html")
    key = key or output.with_suffix(".key.json")
    options.check_file("--key", key)
    check_number("--seed", seed, 0, MAX_SEED)
    check_number("--fps", fps, 1, 240)
    by_clip = read_captions(captions, "--captions")
    chosen = shuffled_clips(folders, by_clip, clips, seed)
    pictures = {} if images is None else find_pictures(images, [clip.clip for clip in chosen])
    with progress_bar() as bar:
        task = bar.add_task("clips", total=len(chosen))
        write_sheet(output, key, chosen, by_clip, pictures, fps, lambda done: bar.update(task, completed=done))
    typer.echo(output)
    typer.echo(f"{key}: which model made which clip; keep it from the raters")
