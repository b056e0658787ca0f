"""`dreamvideo chain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    MAX_SEED,
    AnchorOption,
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
from .reporting import ERRORS, progress_bar, reported, say_what_is_cut


def chain(
    prompts: Annotated[Path, typer.Option(help="Text file with one sentence a line; # begins a comment.")],
    output: OutputOption,
    image: ImageOption = None,
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
    seed: Annotated[int, typer.Option(help="Of the first stage; every further one adds 1.")] = 0,
    seeds: Annotated[str, typer.Option(help='Other seeds, one a stage: "- - 7" makes the third anew.')] = "",
    seam: Annotated[str, typer.Option(help="The frame that two stages share: merge shows it once, keep twice.")] = "merge",
    anchor: AnchorOption = False,
    fps: FpsOption = 8.0,
    device: DeviceOption = None,
) -> None:
    """Make one long clip from many sentences: each stage goes on from the last frame of the one before."""
    with reported():
        from ..chain import SEAMS, plan, run_chain
        from ..checks import InputError, check_choice, check_number
        from ..images import FITS, fit_image, read_image
        from ..pipeline import SHIPPED, Pipeline
        from ..video import check_output, save_clip

        if not prompts.is_file():
            raise InputError(f"--prompts is {str(prompts)!r}, which is no file; give a text file with one sentence a line")
        check_output(output, "--output")
        check_choice("--fit", fit, FITS)
        check_choice("--seam", seam, SEAMS)
        check_number("--seed", seed, 0, MAX_SEED)
        check_number("--fps", fps, 1, 240)
        check_sampling(width, height, frames, steps, text_scale, image_scale, order)
        if frames is not None:
            check_number("--frames", frames, 2, float("inf"))  # a stage of one frame goes nowhere
        stages = plan(prompts.read_text(encoding="utf-8"), seed, seeds)
        for stage in stages:
            say_what_is_cut(stage.sentence, f"sentence {stage.number}")
        chosen_device = choose_device(device)
        picture = None if image is None else read_image(image, "--image")
        pipeline = Pipeline.load(checkpoint or SHIPPED, chosen_device)
        defaults = pipeline.config.sampling
        height, width = height or defaults.height, width or defaults.width
        with progress_bar() as bar:
            task = bar.add_task("stages", total=len(stages) * (steps or defaults.steps))
            made = run_chain(
                pipeline,
                stages,
                None if picture is None else fit_image(picture, height, width, fit),
                seam=seam,
                anchor=anchor,
                negative=negative,
                num_frames=frames,
                height=height,
                width=width,
                steps=steps,
                text_scale=text_scale,
                image_scale=image_scale,
                order=order,
                on_stage=lambda s: ERRORS.print(f"stage {s.number} of {len(stages)}, seed {s.seed}: {s.sentence}"),
                on_step=lambda done, total: bar.update(task, advance=1),
            )
        save_clip(output, made.frames, fps)
        typer.echo(output)
