"""`dreamvideo evaluate`: its options, and the one of three jobs that they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from ..common.checks import InputError
from . import options
from .evaluate_folders import compare_folders
from .evaluate_modes import compare_modes
from .evaluate_world import measure_world
from .metric_options import MetricOptions
from .reporting import reported

_JOBS = {
    measure_world: "without --generated, --dataset and --metrics",
    compare_folders: "with --generated",
    compare_modes: "with --dataset, or with --metrics and no --generated",
}
# Parameters of jobs that hold several options: the fields of these dataclasses.
_GROUPS = {"sampling": options.SamplingOptions, "metric_options": MetricOptions}


def evaluate(
    clips: Annotated[int | None, typer.Option(help="How many clips or chains are made.", show_default="100")] = None,
    world: Annotated[str | None, typer.Option(help="What is measured on: sprites.", show_default="sprites")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the scenes and of the noise.", show_default="0")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint", "--model", help="A DreamVideo file, or a diffusers folder.", show_default="the shipped model"
        ),
    ] = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: Annotated[
        int | None,
        typer.Option(help="Length of the clip; with --generated the first so many of each.", show_default=options.OWN),
    ] = None,
    steps: options.Steps = None,
    text_scale: options.TextScale = None,
    image_scale: options.ImageScale = None,
    order: options.Order = None,
    rescale: options.Rescale = None,
    eta: options.Eta = None,
    model_fps: options.ModelFps = None,
    json: Annotated[Path | None, typer.Option(help="File for the figures.")] = None,
    sheets: Annotated[Path | None, typer.Option(help="Folder for pictures of the best, median and worst clips.")] = None,
    chain: Annotated[int | None, typer.Option(help="Measure chains of so many stages.", show_default="single clips")] = None,
    anchor: options.Anchor = False,
    generated: Annotated[
        list[Path] | None, typer.Option(help="Folder of clips that a model made; give it again for each further model.")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="Folder of the true clips, by the same names.")] = None,
    captions: Annotated[Path | None, typer.Option(help=".csv or .jsonl with the columns path and caption.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Of fvd, is, clipsim, fff_clip, fff_ssim.", show_default="all")] = None,
    dataset: Annotated[
        tuple[str, Path] | None, typer.Option(help="ucf101 or msrvtt and its folder: clips are made of it first.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the clips that are made; the same one goes on.")] = None,
    modes: Annotated[str | None, typer.Option(help="Of t2v, i2v, ti2v.", show_default="all the model can")] = None,
    stride: Annotated[int | None, typer.Option(help="Of the frames taken of a data set's videos.", show_default="4")] = None,
    fvd_network: Annotated[Path | None, typer.Option(help="TorchScript file: clips to features.")] = None,
    is_network: Annotated[Path | None, typer.Option(help="TorchScript file: clips to logits.")] = None,
    clip_folder: Annotated[Path | None, typer.Option(help="Folder of CLIP ViT-B/32, as transformers keeps it.")] = None,
    size: Annotated[
        int | None, typer.Option(help="Bring every clip's middle square to so many pixels.", show_default="as they are")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Folder for a page and a table in the paper's layout.")] = None,
    device: options.Device = None,
    dtype: Annotated[str | None, typer.Option(help=options.DTYPE_HELP, show_default=options.AUTO)] = None,
) -> None:
    """Count how good clips are: those of a model on the small world or on a data set, or any clips by the paper's metrics."""
    given = {name: value for name, value in locals().items() if value is not None and value is not False}
    with reported():
        job = _job(given)
        _check_belongs(job, given)
        job(**_arguments(job, given))


def _job(given: dict) -> Callable[..., None]:
    if "generated" in given:
        return compare_folders
    return compare_modes if "dataset" in given or "metrics" in given else measure_world


def _check_belongs(job: Callable[..., None], given: dict) -> None:
    for name in given:
        if name not in _options_of(job):
            option = "--" + name.replace("_", "-")
            where = "; ".join(when for other, when in _JOBS.items() if name in _options_of(other))
            raise InputError(
                f"{option} is given {_JOBS[job]}; allowed: {where}. Leave {option} out, or give what it belongs to"
            )


def _options_of(job: Callable[..., None]) -> set[str]:
    """The names of all options that a job takes."""
    names = set(inspect.signature(job).parameters)
    return names | {field.name for group in names & set(_GROUPS) for field in fields(_GROUPS[group])}


def _arguments(job: Callable[..., None], given: dict) -> dict:
    """The given options as arguments of the job."""
    names = set(inspect.signature(job).parameters)
    arguments = {name: value for name, value in given.items() if name in names}
    for group in names & set(_GROUPS):
        cls = _GROUPS[group]
        arguments[group] = cls(**{field.name: given[field.name] for field in fields(cls) if field.name in given})
    return arguments
