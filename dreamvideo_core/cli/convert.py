"""`dreamvideo convert` and `dreamvideo init-retention`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import DownloadColumn, Progress

from ..common.checks import InputError, check_choice
from ..common.progress import columns
from . import options
from .reporting import ERRORS, reported

if TYPE_CHECKING:
    import torch

    from ..weights.checkpoint import Checkpoint

SourceArgument = Annotated[Path, typer.Argument(help="A file, or a diffusers folder (unet, text_encoder, vae).")]
TargetArgument = Annotated[Path, typer.Argument(help="The .safetensors file to write.")]
DtypeOption = Annotated[
    str | None, typer.Option("--dtype", help="Of the weights: fp32, fp16 or bf16.", show_default="the source's own")
]


def convert(
    source: SourceArgument,
    target: TargetArgument,
    dtype: DtypeOption = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="epsilon or v_prediction, for a source that does not say it.", show_default="the source's own"),
    ] = None,
    parts: Annotated[
        str, typer.Option(help="Which parts; temporal,retention are the layers that the paper trains, to lay over their model.")
    ] = "unet,retention,text_encoder,vae,resampler,image_encoder",
    model: Annotated[
        str | None,
        typer.Option(
            help="dynamicrafter_256, _512, _512_interp or _1024, for a file that does not say which it is.",
            show_default="the file's own",
        ),
    ] = None,
) -> None:
    """Make one DreamVideo file out of another file, or out of a diffusers folder."""
    with reported():
        from ..models.config import PREDICTIONS
        from ..weights.checkpoint import PARTS
        from ..weights.convert import convert as write
        from ..weights.dynamicrafter import VARIANTS

        chosen = [part.strip() for part in parts.split(",")]
        for part in chosen:
            check_choice("--parts", part, (*PARTS, "temporal"))
        if prediction_type is not None:
            check_choice("--prediction-type", prediction_type, PREDICTIONS)
        if model is not None:
            check_choice("--model", model, VARIANTS)
        with _writing(source, target, dtype) as (precision, on_tensor):
            written = write(source, target, precision, prediction_type, chosen, on_tensor, model)
        _report_parts(target, written)


def init_retention(
    source: SourceArgument,
    target: TargetArgument,
    fusion: Annotated[str, typer.Option(help="How the picture meets the latents: add or concat.")] = "add",
    dtype: DtypeOption = None,
) -> None:
    """Give a text-to-video model an untrained retention branch: the copy of its encoder that training starts from."""
    with reported():
        from ..models.config import FUSIONS
        from ..weights.convert import init_retention as write

        check_choice("--fusion", fusion, FUSIONS)
        with _writing(source, target, dtype) as (precision, on_tensor):
            written = write(source, target, fusion, precision, on_tensor)
        _report_parts(target, written)


@contextmanager
def _writing(source: Path, target: Path, dtype: str | None) -> Iterator[tuple[torch.dtype | None, Callable[[int, int], None]]]:
    """Check the options that `convert` and `init-retention` share; yield the type to write and a progress callback."""
    precision = None if dtype is None else options.choose_dtype(dtype)
    if not source.exists():
        raise InputError(f"the source is {str(source)!r}, which does not exist; give a file or a diffusers folder")
    if target.suffix != ".safetensors" or target.is_dir():
        raise InputError(f"the target is {str(target)!r}; give the name of a file that ends in .safetensors")
    with Progress(*columns(DownloadColumn()), console=ERRORS, transient=True) as bar:
        task = bar.add_task("writing", total=None)
        yield precision, lambda done, total: bar.update(task, completed=done, total=total)


def _report_parts(path: Path, checkpoint: Checkpoint) -> None:
    """Print the file's path, and what it means that it lacks some parts."""
    for remark in checkpoint.remarks:
        ERRORS.print(remark)
    for shortcoming in checkpoint.shortcomings():
        ERRORS.print(f"{path.name} has {shortcoming}")
    typer.echo(path)
