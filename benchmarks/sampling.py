"""What scales, steps and samplers do to a model: three tables and a picture.

    python3 scripts/comfyui.py exec python benchmarks/sampling.py --output docs

writes sampling.md and sampling.png. Every clip goes through the pack's nodes in ComfyUI, for the samplers are ComfyUI's.
The tables count on the small world's validation split; the picture shows the first and the last frame of one scene at
every pair of scales.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated

import torch
import typer
from comfyui_pipeline import ComfyUIPipeline
from einops import rearrange
from host import comfyui_in_process
from pages import provenance, table
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

from dreamvideo_core.common.files import atomic, write_text
from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.media.images import contact_sheet
from dreamvideo_core.sampling.pipeline import SHIPPED
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

SCALES = (1.0, 1.15, 2.0)
STEPS = (2, 5, 10, 25)
SAMPLERS = (
    ("ddim", "simple"), ("ddim", "normal"), ("ddim", "karras"), ("euler_ancestral", "simple"), ("dpmpp_2m", "simple"),
    ("dpmpp_2m_sde", "simple"), ("uni_pc", "simple"), ("lcm", "simple"),
)  # fmt: skip
COLUMNS = (
    "fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "motion", "seconds_per_clip",
)  # fmt: skip
_MARGIN = 40


@dataclass(frozen=True)
class Setting:
    """One row of a table."""

    text_scale: float
    image_scale: float
    steps: int
    sampler: str = "ddim"
    scheduler: str = "simple"

    def cells(self) -> list[str]:
        return [f"{self.text_scale:g}", f"{self.image_scale:g}", str(self.steps), self.sampler, self.scheduler]


def tables(default: Setting) -> dict[str, list[Setting]]:
    """The rows of each table: everything but what it varies is the model's own."""
    return {
        "Scales": [replace(default, text_scale=t, image_scale=i) for t, i in product(SCALES, SCALES)],
        "Steps": [replace(default, steps=steps) for steps in STEPS],
        "Samplers": [replace(default, sampler=sampler, scheduler=scheduler) for sampler, scheduler in SAMPLERS],
    }


def main(
    output: Annotated[Path, typer.Option(help="Folder for sampling.md and sampling.png.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row of the tables.")] = 12,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    size: Annotated[int | None, typer.Option(help="Width and height.", show_default="the model's own height")] = None,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pipeline = ComfyUIPipeline(checkpoint, comfyui_in_process(Path(folder)))
        own = pipeline.config.sampling
        default = Setting(own.text_scale, own.image_scale, own.steps)
        size = size or own.height
        plan = tables(default)
        settings = list(dict.fromkeys(setting for rows in plan.values() for setting in rows))
        bar = track(settings, "counting", console=Console(stderr=True))
        figures = {setting: _figures(pipeline, setting, clips, seed, size) for setting in bar}
        write_text(output / "sampling.md", "\n".join(_document(plan, figures, clips, seed, size, checkpoint)))
        with atomic(output / "sampling.png") as temporary:
            _picture(pipeline, default, seed, size).save(temporary)


def _figures(pipeline: ComfyUIPipeline, setting: Setting, clips: int, seed: int, size: int) -> list[str]:
    pipeline.sampler, pipeline.scheduler = setting.sampler, setting.scheduler
    protocol = Protocol(
        clips=clips,
        seed=seed,
        height=size,
        width=size,
        num_frames=pipeline.config.sampling.num_frames,
        steps=setting.steps,
        text_scale=setting.text_scale,
        image_scale=setting.image_scale,
        modes=("ti2v",),
        split="validation",
    )
    means = summary(measure(pipeline, protocol), protocol, "")["modes"]["ti2v"]
    return [f"{means.get(name, math.nan):.3f}" for name in COLUMNS]


def _document(
    plan: dict[str, list[Setting]], figures: dict[Setting, list[str]], clips: int, seed: int, size: int, checkpoint: Path
) -> Iterator[str]:
    yield "# Scales, steps, samplers and schedulers\n"
    yield f"{clips} scenes of the validation split with a picture and a sentence, {size} x {size}."
    yield from provenance(f"sampling.py --clips {clips} --seed {seed} --size {size}", checkpoint)
    yield "Rows are not timed in turn: seconds_per_clip is rough.\n"
    yield "![First and last frame at every pair of scales](sampling.png)"
    head = ["text scale", "image scale", "steps", "sampler", "scheduler", *COLUMNS]
    for title, settings in plan.items():
        yield f"\n## {title}\n"
        yield from table(head, ([*s.cells(), *figures[s]] for s in settings))
    yield ""


def _picture(pipeline: ComfyUIPipeline, default: Setting, seed: int, size: int) -> Image.Image:
    """Rows are text scales, columns image scales; each cell is the first and the last frame."""
    clip = sample_clip(seeded("validation", seed, 0))
    image = render_batch([clip], num_frames=1, height=size, width=size)[:, 0]
    pipeline.sampler, pipeline.scheduler = default.sampler, default.scheduler
    options = {"num_frames": pipeline.config.sampling.num_frames, "height": size, "width": size, "steps": default.steps}
    cells = [
        pipeline([sentence(clip)], image, text_scale=t, image_scale=i, order="text_first", seed=seed, **options)[0, [0, -1]]
        for t, i in product(SCALES, SCALES)
    ]
    pairs = [rearrange(cell, "t c h w -> c h (t w)") for cell in cells]
    grid = contact_sheet(torch.stack(pairs), columns=len(SCALES))
    picture = Image.new("RGB", (grid.width + _MARGIN, grid.height + _MARGIN), "white")
    picture.paste(grid, (_MARGIN, _MARGIN))
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, 2), f"{sentence(clip)}: first and last frame", fill="black")
    for number, scale in enumerate(SCALES):
        draw.text((_MARGIN + number * grid.width // len(SCALES), _MARGIN // 2), f"image {scale:g}", fill="black")
        draw.text((2, _MARGIN + number * grid.height // len(SCALES)), f"text\n{scale:g}", fill="black")
    return picture


if __name__ == "__main__":
    typer.run(main)
