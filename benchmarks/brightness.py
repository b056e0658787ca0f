"""The paper's Fig. 3 in figures: what the image scale does to brightness and contrast, and what takes it back.

    python3 scripts/comfyui.py exec python benchmarks/brightness.py --output docs

writes brightness.md. Brightness, contrast and saturation are those of the first frame as shares of the picture's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from pages import provenance, table
from rich.console import Console
from rich.progress import track

from dreamvideo_core.common.files import write_text
from dreamvideo_core.evaluation.chain import colours
from dreamvideo_core.evaluation.metrics import first_frame_ssim
from dreamvideo_core.evaluation.sprites import Candidates, looks_alike
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import Clip, render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

IMAGE_SCALES = (1.0, 2.0, 3.0, 5.0)
RESCALES = (0.0, 0.7, 1.0)
ENDS = (1.0, 0.4)  # of guidance, in shares of the noise schedule
MEASURES = ("fff_ssim", "action_accuracy", "brightness", "contrast", "saturation")
BATCH = 4


def main(
    output: Annotated[Path, typer.Option(help="Folder for brightness.md.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    scenes = [sample_clip(seeded("validation", seed, number)) for number in range(clips)]
    choices = product(ENDS, RESCALES, IMAGE_SCALES)
    settings = [{"guidance_end": end, "rescale": rescale, "image_scale": scale} for end, rescale, scale in choices]
    bar = track(settings, "measuring", console=Console(stderr=True))
    rows = [(setting, _means(pipeline, scenes, seed, setting)) for setting in bar]
    write_text(output / "brightness.md", "\n".join(_document(rows, clips, seed, checkpoint)))


def _means(pipeline: Pipeline, scenes: list[Clip], seed: int, setting: dict[str, float]) -> list[float]:
    values = [row for start in range(0, len(scenes), BATCH) for row in _batch(pipeline, scenes, start, seed, setting)]
    return [sum(column) / len(column) for column in zip(*values, strict=True)]


def _batch(pipeline: Pipeline, scenes: list[Clip], start: int, seed: int, setting: dict[str, float]) -> Iterator[list[float]]:
    own = pipeline.config.sampling
    size = {"num_frames": own.num_frames, "height": own.height, "width": own.width}
    batch = scenes[start : start + BATCH]
    images = render_batch(batch, **size)[:, 0]
    made = pipeline([sentence(clip) for clip in batch], images, seed=seed + start, **setting, num_frames=own.num_frames)
    for clip, frames, image in zip(batch, made, images, strict=True):
        similarity = float(first_frame_ssim(frames[:1], image[None]))
        right = float(looks_alike(Candidates.of(clip.scene, **size).nearest(frames), clip))
        shares = [a / b for a, b in zip(colours(frames[0]).values(), colours(image).values(), strict=True)]
        yield [similarity, right, *shares]


def _document(rows: list[tuple[dict, list[float]]], clips: int, seed: int, checkpoint: Path) -> Iterator[str]:
    yield "# What image scales do to brightness and contrast, and what takes it back\n"
    yield f"{clips} scenes of the validation split with a picture and a sentence, at the model's own text scale and steps."
    yield "Colours are those of the first frame as shares of the picture's."
    yield from provenance(f"brightness.py --clips {clips} --seed {seed}", checkpoint)
    yield ""
    head = [*rows[0][0], *MEASURES]
    cells = [[*(f"{amount:g}" for amount in setting.values()), *(f"{v:.3f}" for v in values)] for setting, values in rows]
    yield from table(head, cells)
    yield ""


if __name__ == "__main__":
    typer.run(main)
