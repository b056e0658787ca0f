"""`dreamvideo generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common.checks import InputError
from . import options
from .reporting import progress_bar, reported, warn_of_cut_text


def generate(
    output: options.Output,
    image: options.Image = None,
    prompt: Annotated[str | None, typer.Option(help="Sentence that says what moves; none: the picture alone.")] = None,
    negative: options.Negative = "",
    checkpoint: options.Checkpoint = None,
    width: options.Width = None,
    height: options.Height = None,
    frames: options.Frames = None,
    fit: options.Fit = "crop",
    steps: options.Steps = None,
    text_scale: options.TextScale = None,
    image_scale: options.ImageScale = None,
    order: options.Order = "text_first",
    seed: Annotated[int, typer.Option(help="The same seed gives the same clip.")] = 0,
    fps: options.Fps = 8.0,
    device: options.Device = None,
    dtype: options.Dtype = options.AUTO,
    cuda_graphs: options.CudaGraphs = True,
) -> None:
    """Make a clip from a picture, a sentence, or both."""
    with reported():
        from ..media.images import fit_image, read_image
        from ..media.video import save_clip
        from ..sampling.pipeline import SHIPPED, Pipeline

        if image is None and prompt is None:
            raise InputError("neither --image nor --prompt is given; give one of them or both")
        options.check_clip(output, fit, seed, fps)
        wanted = options.SamplingOptions(width, height, frames, steps, text_scale, image_scale, order)
        wanted.check()
        warn_of_cut_text(prompt or "", "--prompt")
        chosen_device, precision = options.choose_device(device), options.choose_precision(dtype)
        picture = None if image is None else read_image(image, "--image")

        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, chosen_device, precision, cuda_graphs)
        if picture is not None and pipeline.model.retention is None:
            raise InputError(
                f"--image is given, but {path.name} has no retention branch and makes video from text only; "
                "leave --image out, or give another --checkpoint"
            )
        sampling = wanted.with_defaults(pipeline.config.sampling)
        if picture is not None:
            picture = fit_image(picture, sampling["height"], sampling["width"], fit)
        with progress_bar() as bar:
            task = bar.add_task("sampling", total=sampling["steps"])
            clips = pipeline(
                prompt or "",
                picture,
                negative=negative,
                seed=seed,
                on_step=lambda done, total: bar.update(task, completed=done),
                **sampling,
            )
        save_clip(output, clips[0], fps)
        typer.echo(output)
