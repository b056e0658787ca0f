"""`dreamvideo check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .reporting import ERRORS, progress_bar, reported, warn_of_cut_text

if TYPE_CHECKING:
    import torch

    from ..evaluation.check import Checked

_PICTURES = (".png", ".jpg", ".webp")


def check(
    model: Annotated[Path, typer.Argument(help="A DreamVideo file, or a diffusers folder.")],
    image: options.Image = None,
    end_image: options.EndImage = None,
    prompt: Annotated[str, typer.Option(help="Sentence that says what moves.")] = "",
    width: options.Width = None,
    height: options.Height = None,
    steps: options.Steps = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same clip.")] = 0,
    output: Annotated[Path, typer.Option(help="Sheet of frames to write: .png, .jpg or .webp.")] = Path("check.png"),
    device: options.Device = None,
    dtype: options.Dtype = options.AUTO,
    cuda_graphs: options.CudaGraphs = True,
) -> None:
    """Try a model for the first time: say what its file lacks, make one clip, measure it, and show it on a sheet.

    The printed line is there to be pasted into a report.
    """
    with reported():
        import time

        from ..common.checks import InputError, check_number
        from ..common.files import atomic
        from ..evaluation.check import check_model, sheet
        from ..media.images import to_picture
        from ..sampling.pipeline import Pipeline
        from ..weights.sources import open_model

        if output.suffix.lower() not in _PICTURES or output.is_dir():
            raise InputError(f"--output is {str(output)!r}; allowed: a file that ends in {', '.join(_PICTURES)}")
        check_number("--seed", seed, 0, options.MAX_SEED)
        wanted = options.SamplingOptions(width, height, steps=steps)
        wanted.check()
        warn_of_cut_text(prompt, "--prompt")
        chosen_device, precision = options.choose_device(device), options.choose_precision(dtype)
        first, last = options.read_pictures(image, end_image)

        checkpoint = open_model(model)
        for remark in checkpoint.remarks:
            ERRORS.print(remark)
        for shortcoming in checkpoint.shortcomings():
            ERRORS.print(f"{model.name} has {shortcoming}")
        started = time.monotonic()
        pipeline = Pipeline.load(model, chosen_device, precision, cuda_graphs)
        loading = time.monotonic() - started
        if first is not None and not pipeline.config.takes_image:
            ERRORS.print(f"{model.name} makes video from text only: --image is left out")
            first = None
        if last is None and pipeline.config.unet.image_latents == "ends":
            ERRORS.print(f"{model.name} goes from a first to a last picture: without --end-image the clip is a loop")
            last = first
        sampling = wanted.with_defaults(pipeline.config)
        first, last = options.fitted((first, last), sampling, "crop")
        pipeline.check_given(first, last, sampling["num_frames"], sampling.get("fps"))
        with progress_bar() as bar:
            task = bar.add_task("sampling", total=sampling["steps"])
            checked = check_model(
                pipeline,
                prompt,
                first,
                last,
                lambda done, total: bar.update(task, completed=done),
                seed=seed,
                **sampling,
            )
        place = f"{options.precision_name(pipeline.model.dtype)} on {_called(pipeline.device)}, loaded in {loading:.0f} s"
        line = _line(model, checked, {**sampling, "seed": seed}, place, checkpoint.lacks())
        with atomic(output) as temporary:
            to_picture(sheet(checked, line, first, last)).save(temporary)
        typer.echo(line)
        typer.echo(output)
        if not checked.finite:
            raise InputError(f"{model.name} gave values that are no numbers; try --dtype fp32, or another file")


def _line(model: Path, checked: Checked, sampling: dict[str, Any], place: str, lacking: tuple[str, ...]) -> str:
    import torch

    from ..evaluation.check import file_size

    count, _, height, width = checked.frames.shape
    settings = [f"{sampling['steps']} steps", f"scales {sampling['text_scale']:g} / {sampling['image_scale']:g}"]
    others = (name for name in ("rescale", "eta", "fps", "seed") if name in sampling)
    settings += [sampling["order"], *(f"{name} {sampling[name]}" for name in others)]
    return "; ".join(
        [
            f"{model.name} of {file_size(model):,} bytes, lacking {' and '.join(lacking) or 'nothing'}",
            f"{count} frames of {width} x {height}, {', '.join(settings)}",
            str(checked),
            f"{place}, torch {torch.__version__}",
        ]
    )


def _called(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
