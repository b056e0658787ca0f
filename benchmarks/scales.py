"""What the two scales and the number of steps do to the shipped model: a table and a picture.

    python benchmarks/scales.py --output docs

writes scales.md and scales.png. The table counts on the small world's validation split; the picture shows the first and
the last frame of one scene at every pair of scales.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from einops import rearrange
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.files import atomic
from dreamvideo_core.images import contact_sheet
from dreamvideo_core.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

TEXT_SCALES = (1.0, 1.5, 2.0, 3.0)
IMAGE_SCALES = (1.0, 1.5, 2.0, 3.0)
STEPS = (5, 10, 25, 50)
COLUMNS = ("fff_ssim", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "motion", "seconds_per_clip")
_MARGIN = 40


def main(
    output: Annotated[Path, typer.Option(help="Folder for scales.md and scales.png.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row of the table.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    size: Annotated[int | None, typer.Option(help="Width and height.", show_default="the model's own height")] = None,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    default = pipeline.config.sampling
    size = size or default.height
    runs = [(s_t, s_i, default.steps) for s_t, s_i in product(TEXT_SCALES, IMAGE_SCALES)]
    runs += [(default.text_scale, default.image_scale, steps) for steps in (*STEPS, default.steps)]
    runs = list(dict.fromkeys(runs))
    rows = [_row(pipeline, clips, seed, size, *run) for run in track(runs, "counting", Console(stderr=True))]
    with atomic(output / "scales.md") as temporary:
        temporary.write_text(_table(rows, clips, seed, size), encoding="utf-8")
    with atomic(output / "scales.png") as temporary:
        _picture(pipeline, seed, size).save(temporary)


def _row(pipeline: Pipeline, clips: int, seed: int, size: int, s_t: float, s_i: float, steps: int) -> list[str]:
    protocol = Protocol(
        clips=clips,
        seed=seed,
        height=size,
        width=size,
        num_frames=pipeline.config.sampling.num_frames,
        steps=steps,
        text_scale=s_t,
        image_scale=s_i,
        modes=("ti2v",),
        split="validation",
    )
    figures = summary(measure(pipeline, protocol), protocol, "")["modes"]["ti2v"]
    return [f"{s_t:g}", f"{s_i:g}", str(steps), *(f"{figures.get(name, math.nan):.3f}" for name in COLUMNS)]


def _table(rows: list[list[str]], clips: int, seed: int, size: int) -> str:
    head = ["text scale", "image scale", "steps", *COLUMNS]
    lines = [head, ["---"] * len(head), *rows]
    command = f"`python benchmarks/scales.py --clips {clips} --seed {seed} --size {size}`"
    title = f"{clips} scenes of the validation split, {size} x {size}, DDIM; made by {command}."
    return "\n".join([title, "", *("| " + " | ".join(line) + " |" for line in lines), ""])


def _picture(pipeline: Pipeline, seed: int, size: int) -> Image.Image:
    """Rows are text scales, columns image scales; each cell is the first and the last frame."""
    clip = sample_clip(seeded("validation", seed, 0))
    image = render_batch([clip], num_frames=1, height=size, width=size)[:, 0]
    cells = [
        pipeline(sentence(clip), image, text_scale=s_t, image_scale=s_i)[0, [0, -1]]
        for s_t, s_i in product(TEXT_SCALES, IMAGE_SCALES)
    ]
    pairs = [rearrange(cell, "t c h w -> c h (t w)") for cell in cells]
    grid = contact_sheet(torch.stack(pairs), columns=len(IMAGE_SCALES))
    picture = Image.new("RGB", (grid.width + _MARGIN, grid.height + _MARGIN), "white")
    picture.paste(grid, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 2), f"{sentence(clip)}: first and last frame", fill="black")
    for number, scale in enumerate(IMAGE_SCALES):
        draw.text((_MARGIN + number * grid.width // len(IMAGE_SCALES), _MARGIN // 2), f"image {scale:g}", fill="black")
    for number, scale in enumerate(TEXT_SCALES):
        draw.text((2, _MARGIN + number * grid.height // len(TEXT_SCALES)), f"text\n{scale:g}", fill="black")
    return picture


if __name__ == "__main__":
    typer.run(main)
