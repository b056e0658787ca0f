"""`dreamvideo generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    MAX_SEED,
    CheckpointOption,
    DeviceOption,
    FitOption,
    FpsOption,
    FramesOption,
    HeightOption,
    ImageOption,
    ImageScaleOption,
    NegativeOption,
    OrderOption,
    OutputOption,
    StepsOption,
    TextScaleOption,
    WidthOption,
    check_sampling,
    choose_device,
)
from .reporting import progress_bar, reported, say_what_is_cut


def generate(
    output: OutputOption,
    image: ImageOption = None,
    prompt: Annotated[str | None, typer.Option(help="Sentence that says what moves; none: the picture alone.")] = None,
    negative: NegativeOption = "",
    checkpoint: CheckpointOption = None,
    width: WidthOption = None,
    height: HeightOption = None,
    frames: FramesOption = None,
    fit: FitOption = "crop",
    steps: StepsOption = None,
    text_scale: TextScaleOption = None,
    image_scale: ImageScaleOption = None,
    order: OrderOption = "text_first",
    seed: Annotated[int, typer.Option(help="The same seed gives the same clip.")] = 0,
    fps: FpsOption = 8.0,
    device: DeviceOption = None,
) -> None:
    """Make a clip from a picture, a sentence, or both."""
    with reported():
        from ..checks import InputError, check_choice, check_number
        from ..images import FITS, fit_image, read_image
        from ..pipeline import SHIPPED, Pipeline
        from ..video import check_output, save_clip

        if image is None and prompt is None:
            raise InputError("neither --image nor --prompt is given; give one of them or both")
        check_output(output, "--output")
        check_choice("--fit", fit, FITS)
        check_number("--seed", seed, 0, MAX_SEED)
        check_number("--fps", fps, 1, 240)
        check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        say_what_is_cut(prompt or "", "--prompt")
        chosen_device = choose_device(device)
        picture = None if image is None else read_image(image, "--image")

        path = checkpoint or SHIPPED
        pipeline = Pipeline.load(path, chosen_device)
        if picture is not None and pipeline.model.retention is None:
            raise InputError(
                f"--image is given, but {path.name} has no retention branch and makes video from text only; "
                "leave --image out, or give another --checkpoint"
            )
        defaults = pipeline.config.sampling
        height, width = height or defaults.height, width or defaults.width
        with progress_bar() as bar:
            task = bar.add_task("sampling", total=steps or defaults.steps)
            clips = pipeline(
                prompt or "",
                None if picture is None else fit_image(picture, height, width, fit),
                negative=negative,
                num_frames=frames,
                height=height,
                width=width,
                steps=steps,
                text_scale=text_scale,
                image_scale=image_scale,
                order=order,
                seed=seed,
                on_step=lambda done, total: bar.update(task, completed=done, total=total),
            )
        save_clip(output, clips[0], fps)
        typer.echo(output)
