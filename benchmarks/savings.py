"""What the optional savings gain and what they cost: guidance in a part of the steps, the branch in every so many.

    python3 scripts/comfyui.py exec python benchmarks/savings.py --output docs

writes savings.md and savings.png. Clips of the small world's validation split with a picture and a sentence are counted for
every setting, and one clip is timed for all of them in turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from pages import provenance, table
from PIL import Image
from rich.console import Console
from rich.progress import track
from timing import alternate
from torch import Tensor

from dreamvideo_core.common.files import atomic, write_text
from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.media.images import contact_sheet
from dreamvideo_core.media.plot import Trail, trail_plot
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

EVERY = (2, 3, 5)
ENDS, STARTS, BETWEEN = (0.8, 0.6, 0.4), (0.2, 0.4), ((0.2, 0.8),)
NO_SAVING = "no saving"
COLUMNS = ("fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "motion")
GAIN = "times as fast"
LOSS = 0.01  # that a recommended setting may have in any of PRICES, and by which its motion may be further from 1
PRICES = ("fff_ssim", "action_accuracy", "clip_ssim_sprite", "varied_text_accuracy")
Options = dict[str, float]
Figures = dict[str, dict[str, float]]


class Saving:
    """A pipeline that saves: each of its calls has these options too."""

    def __init__(self, pipeline: Pipeline, options: Options):
        self.pipeline, self.options = pipeline, options
        self.device, self.encode, self.decode = pipeline.device, pipeline.encode, pipeline.decode

    def __call__(self, prompts: list[str], image: Tensor | None, **options) -> Tensor:
        return self.pipeline(prompts, image, **options, **self.options)


def savings() -> dict[str, dict[str, Options]]:
    """By the kind of saving and its amount; both together name a row."""
    return {
        "retention_every": {f"{every}": {"retention_every": every} for every in EVERY},
        "guidance_end": {f"{end:g}": {"guidance_end": end} for end in ENDS},
        "guidance_start": {f"{start:g}": {"guidance_start": start} for start in STARTS},
        "both": {f"{a:g}, {b:g}": {"guidance_start": a, "guidance_end": b} for a, b in BETWEEN},
    }


def main(
    output: Annotated[Path, typer.Option(help="Folder for savings.md and savings.png.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    repeats: Annotated[int, typer.Option(help="Rounds of which median times are taken.")] = 3,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    named = {f"{kind} {amount}": options for kind, amounts in savings().items() for amount, options in amounts.items()}
    rows = {name: Saving(pipeline, options) for name, options in ({NO_SAVING: {}} | named).items()}
    gains = _gains(rows, seed, repeats)
    protocol = Protocol(clips=clips, seed=seed, modes=("ti2v",), split="validation", **pipeline.config.sampling_options())
    bar = track(rows.items(), "counting", console=Console(stderr=True))
    figures = {
        name: {GAIN: gains[name], **summary(measure(saving, protocol), protocol, "")["modes"]["ti2v"]} for name, saving in bar
    }
    write_text(output / "savings.md", "\n".join(_document(figures, protocol, repeats, checkpoint)))
    with atomic(output / "savings.png") as temporary:
        _picture(figures).save(temporary)


def _gains(rows: dict[str, Saving], seed: int, repeats: int) -> dict[str, float]:
    """How many times as fast a clip is made as without any saving."""
    clip = sample_clip(seeded("validation", seed, 0))
    plain = rows[NO_SAVING]
    own = plain.pipeline.config.sampling
    image = render_batch([clip], num_frames=1, height=own.height, width=own.width)[:, 0]
    calls = {name: lambda saving=saving: saving([sentence(clip)], image, seed=seed) for name, saving in rows.items()}
    calls[NO_SAVING]()  # kernels are chosen
    times = alternate(calls, repeats, plain.device)
    return {name: times[NO_SAVING] / taken for name, taken in times.items()}


def fastest(figures: Figures) -> str:
    """The fastest row that loses at most `LOSS` anywhere; the one without any saving never loses."""
    plain = figures[NO_SAVING]

    def cheap(found: dict[str, float]) -> bool:
        too_far = abs(1 - found["motion"]) - abs(1 - plain["motion"])
        return too_far <= LOSS and all(found[price] >= plain[price] - LOSS for price in PRICES)

    return max((name for name, found in figures.items() if cheap(found)), key=lambda name: figures[name][GAIN])


def _document(figures: Figures, protocol: Protocol, repeats: int, checkpoint: Path) -> Iterator[str]:
    p = protocol
    yield "# What the optional savings gain and cost\n"
    yield f"{p.clips} scenes of the validation split with a picture and a sentence, {p.width} x {p.height} x {p.num_frames},"
    yield f"{p.steps} steps of DDIM at scales {p.text_scale:g} / {p.image_scale:g}; scenes and noise are the same in every row."
    yield f"Times are medians of {repeats} for one clip, all rows in turn. Both kinds of saving are off by default."
    yield from provenance(f"savings.py --clips {p.clips} --seed {p.seed} --repeats {repeats}", checkpoint)
    yield ""
    head = ["", GAIN, *COLUMNS]
    cells = [[name, f"{f[GAIN]:.2f}", *(f"{f[column]:.3f}" for column in COLUMNS)] for name, f in figures.items()]
    yield from table(head, cells)
    yield "\n`guidance_start` and `guidance_end` are shares of the noise schedule, 0 its noisiest end; a step outside is"
    yield f"one evaluation, and `both` gives the two. Recommended: **{fastest(figures)}**, the fastest row that loses at"
    yield f"most {LOSS:g} in each of {', '.join(PRICES)}, and whose motion is no more than that further from 1."
    yield f"\n![{', '.join(PRICES)} over how many times as fast a clip is made](savings.png)\n"


def _picture(figures: Figures) -> Image.Image:
    """A plot for each price; every kind of saving is a trail from where nothing is saved."""

    def place(name: str, price: str) -> tuple[float, float]:
        return figures[name][GAIN], figures[name][price]

    def trail(kind: str, amounts: Iterable[str], price: str) -> Trail:
        return Trail(kind, {"": place(NO_SAVING, price)} | {a: place(f"{kind} {a}", price) for a in amounts})

    plots = [
        trail_plot([trail(kind, amounts, price) for kind, amounts in savings().items()], across=f"{GAIN}; upwards {price}")
        for price in PRICES
    ]
    return contact_sheet(torch.cat(plots), columns=2)


if __name__ == "__main__":
    typer.run(main)
