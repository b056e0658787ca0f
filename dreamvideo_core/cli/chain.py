"""`dreamvideo chain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..common.checks import InputError, check_choice
from ..common.text_files import read_text
from . import options
from .reporting import ERRORS, progress_bar, reported, warn_of_cut_text


def chain(
    prompts: Annotated[Path, typer.Option(help="Text file with one sentence a line; # begins a comment.")],
    output: options.Output,
    image: options.Image = None,
    end_image: options.EndImage = None,
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
    seed: Annotated[int, typer.Option(help="Of the first stage; every further one adds 1.")] = 0,
    seeds: Annotated[str, typer.Option(help='Other seeds, one a stage: "- - 7" makes the third anew.')] = "",
    seam: Annotated[str, typer.Option(help="The frame that two stages share: merge shows it once, keep twice.")] = "merge",
    anchor: options.Anchor = False,
    fps: options.Fps = 8.0,
    device: options.Device = None,
    dtype: options.Dtype = options.AUTO,
    cuda_graphs: options.CudaGraphs = True,
) -> None:
    """Make one long clip from many sentences: each stage goes on from the last frame of the one before."""
    with reported():
        from ..media.video import save_clip
        from ..sampling.chain import SEAMS, plan_stages, run_chain
        from ..sampling.pipeline import SHIPPED, Pipeline

        if not prompts.is_file():
            raise InputError(f"--prompts is {str(prompts)!r}, which is no file; give a text file with one sentence a line")
        options.check_clip(output, fit, seed, fps)
        check_choice("--seam", seam, SEAMS)
        wanted = options.SamplingOptions(width, height, frames, steps, text_scale, image_scale, order, rescale, eta, model_fps)
        wanted.check(least_frames=2)  # one frame shows no motion
        stages = plan_stages(read_text(prompts, "--prompts"), seed, seeds)
        for stage in stages:
            warn_of_cut_text(stage.sentence, f"sentence {stage.number}")
        chosen_device, precision = options.choose_device(device), options.choose_precision(dtype)
        picture, last = options.read_pictures(image, end_image)

        pipeline = Pipeline.load(checkpoint or SHIPPED, chosen_device, precision, cuda_graphs)
        sampling = wanted.with_defaults(pipeline.config)
        picture, last = options.fitted((picture, last), sampling, fit)
        pipeline.check_given(picture, last, sampling["num_frames"], sampling.get("fps"))
        with progress_bar() as bar:
            task = bar.add_task("steps", total=len(stages) * sampling["steps"])
            made = run_chain(
                pipeline,
                stages,
                picture,
                seam=seam,
                anchor=anchor,
                end_image=last,
                negative=negative,
                on_stage=lambda s: ERRORS.print(f"stage {s.number} of {len(stages)}, seed {s.seed}: {s.sentence}"),
                on_step=lambda done, total: bar.update(task, advance=1),
                **sampling,
            )
        save_clip(output, made.frames, fps)
        typer.echo(output)
