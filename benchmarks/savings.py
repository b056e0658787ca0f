"""What the optional savings gain and what they cost: guidance in a part of the steps, the branch in every so many.

    python3 scripts/comfyui.py exec python benchmarks/savings.py --output docs

writes savings.md. Clips of the small world's validation split with a picture and a sentence are counted for every setting, and
one clip is timed for all of them in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track
from timing import alternate
from torch import Tensor

from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.files import atomic
from dreamvideo_core.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

EVERY = (2, 3, 5)
INTERVALS = ((0.0, 0.8), (0.0, 0.6), (0.0, 0.4), (0.2, 1.0), (0.4, 1.0), (0.2, 0.8))
COLUMNS = ("fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "motion")
LOSS = 0.01  # that a recommended setting may have in any of PRICES
PRICES = ("fff_ssim", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy")
Figures = dict[str, dict[str, float]]


class Saving:
    """A pipeline that saves: each of its calls has these options too."""

    def __init__(self, pipeline: Pipeline, options: dict[str, float]):
        self.pipeline, self.options = pipeline, options
        self.device, self.encode, self.decode = pipeline.device, pipeline.encode, pipeline.decode

    def __call__(self, prompts: list[str], image: Tensor | None, **options) -> Tensor:
        return self.pipeline(prompts, image, **options, **self.options)


def settings() -> dict[str, dict[str, float]]:
    """The options of each row, by what the row is called; the first saves nothing."""
    rows = {"all steps": {}}
    rows |= {f"retention_every {every}": {"retention_every": every} for every in EVERY}
    rows |= {f"guidance from {start:g} to {end:g}": {"guidance_start": start, "guidance_end": end} for start, end in INTERVALS}
    return rows


def main(
    output: Annotated[Path, typer.Option(help="Folder for savings.md.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    repeats: Annotated[int, typer.Option(help="Rounds of which median times are taken.")] = 3,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    rows = {name: Saving(pipeline, options) for name, options in settings().items()}
    gains = _gains(rows, seed, repeats)
    protocol = Protocol(clips=clips, seed=seed, modes=("ti2v",), split="validation", **asdict(pipeline.config.sampling))
    bar = track(rows.items(), "counting", console=Console(stderr=True))
    figures = {
        name: {"times as fast": gains[name], **summary(measure(saving, protocol), protocol, "")["modes"]["ti2v"]}
        for name, saving in bar
    }
    with atomic(output / "savings.md") as temporary:
        temporary.write_text("\n".join(_document(figures, protocol)), encoding="utf-8")


def _gains(rows: dict[str, Saving], seed: int, repeats: int) -> dict[str, float]:
    """How many times as fast a clip is made as without any saving."""
    clip = sample_clip(seeded("validation", seed, 0))
    own = next(iter(rows.values())).pipeline.config.sampling
    image = render_batch([clip], num_frames=1, height=own.height, width=own.width)[:, 0]
    calls = {name: lambda saving=saving: saving([sentence(clip)], image, seed=seed) for name, saving in rows.items()}
    next(iter(calls.values()))()  # kernels are chosen
    times = alternate(calls, repeats, next(iter(rows.values())).device)
    return {name: times[next(iter(rows))] / taken for name, taken in times.items()}


def recommended(figures: Figures) -> str:
    """The fastest row that loses at most `LOSS` in every one of `PRICES`; the first may be all there is."""
    plain = next(iter(figures.values()))
    cheap = {n: f for n, f in figures.items() if all(f[price] >= plain[price] - LOSS for price in PRICES)}
    return max(cheap, key=lambda name: cheap[name]["times as fast"])


def _document(figures: Figures, protocol: Protocol) -> Iterator[str]:
    p = protocol
    yield f"{p.clips} scenes of the validation split with a picture and a sentence, {p.width} x {p.height} x {p.num_frames},"
    yield f"{p.steps} steps of DDIM at scales {p.text_scale:g} / {p.image_scale:g}. Both savings are off by default. Made by"
    yield f"`python3 scripts/comfyui.py exec python benchmarks/savings.py --clips {p.clips} --seed {p.seed}`.\n"
    head = ["", "times as fast", *COLUMNS]
    cells = [[name, f"{f['times as fast']:.2f}", *(f"{f[column]:.3f}" for column in COLUMNS)] for name, f in figures.items()]
    for row in (head, ["---"] * len(head), *cells):
        yield "| " + " | ".join(row) + " |"
    yield f"\nThe fastest that loses at most {LOSS:g} in each of {', '.join(PRICES)}: {recommended(figures)}."
    yield ""


if __name__ == "__main__":
    typer.run(main)
