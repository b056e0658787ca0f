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
    end_image: options.EndImage = None,
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
    order: options.Order = None,
    rescale: options.Rescale = None,
    eta: options.Eta = None,
    model_fps: options.ModelFps = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same clip.")] = 0,
    fps: options.Fps = 8.0,
    device: options.Device = None,
    dtype: options.Dtype = options.AUTO,
    cuda_graphs: options.CudaGraphs = True,
) -> None:
    """Make a clip from a picture, a sentence, or both."""
    with reported():
        from ..media.video import save_clip
        from ..sampling.pipeline import SHIPPED, Pipeline

        if image is None and prompt is None:
            raise InputError("neither --image nor --prompt is given; give one of them or both")
        options.check_clip(output, fit, seed, fps)
        wanted = options.SamplingOptions(width, height, frames, steps, text_scale, image_scale, order, rescale, eta, model_fps)
        wanted.check()
        warn_of_cut_text(prompt or "", "--prompt")
        chosen_device, precision = options.choose_device(device), options.choose_precision(dtype)
        picture, last = options.read_pictures(image, end_image)

        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, chosen_device, precision, cuda_graphs)
        if picture is not None and not pipeline.config.takes_image:
            raise InputError(
                f"--image is given, but {path.name} has no retention branch and makes video from text only; "
                "leave --image out, or give another --checkpoint"
            )
        sampling = wanted.with_defaults(pipeline.config)
        picture, last = options.fitted((picture, last), sampling, fit)
        pipeline.check_given(picture, last, sampling["num_frames"], sampling.get("fps"))
        with progress_bar() as bar:
            task = bar.add_task("sampling", total=sampling["steps"])
            clips = pipeline(
                prompt or "",
                picture,
                end_image=last,
                negative=negative,
                seed=seed,
                on_step=lambda done, total: bar.update(task, completed=done),
                **sampling,
            )
        save_clip(output, clips[0], fps)
        typer.echo(output)
