"""Where a model of the small world still works: other sizes, other lengths, other words, sprites cut by the border.

    python3 scripts/comfyui.py exec python benchmarks/robustness.py --output docs

writes robustness.md, and until that is whole robustness.part.md with the rows so far. Similarities are shares of what the
autoencoder alone reaches on the same clips. With `--photographs FOLDER` it also says what becomes of pictures that are nothing
like the small world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from pages import provenance, table
from rich.console import Console
from rich.progress import track
from torch import Tensor

from dreamvideo_core.common.files import write_text
from dreamvideo_core.evaluation.metrics import first_frame_ssim
from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.media.images import fit_image, read_image
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites.sentences import WORDINGS

SIZES = ((64, 64), (96, 96), (128, 128), (192, 192), (256, 256), (192, 128), (96, 160))  # width, height
FRAMES = (4, 12, 16)
CUT = 0.06
# The generator of training sentences can make the first two; the others have words or an order that it does not know.
SAYINGS = {
    "move the {name} ...": {
        "left": "move the {name} to the left", "right": "move the {name} to the right", "up": "move the {name} up",
        "down": "move the {name} down", "grow": "make the {name} bigger", "shrink": "make the {name} smaller",
        "still": "keep the {name} still",
    },
    "a video of the {name} moving ...": {
        "left": "a video of the {name} moving left", "right": "a video of the {name} moving right",
        "up": "a video of the {name} rising", "down": "a video of the {name} falling",
        "grow": "a video of the {name} growing", "shrink": "a video of the {name} shrinking",
        "still": "a video of the {name} standing still",
    },
    "the {colour} one {action}": {},
    "{name} {action}, please!": {},
    "{colour} {synonym} {action}": {},
    "in this clip we see that the {name} {action}": {},
    "I want the {name} to move ...": {
        "left": "I want the {name} to move left", "right": "I want the {name} to move right",
        "up": "I want the {name} to rise", "down": "I want the {name} to fall", "grow": "I want the {name} to grow",
        "shrink": "I want the {name} to shrink", "still": "I want the {name} to stay where it is",
    },
    "the {name} drifts ...": {
        "left": "the {name} drifts left", "right": "the {name} drifts right", "up": "the {name} floats upwards",
        "down": "the {name} sinks down", "grow": "the {name} turns bigger", "shrink": "the {name} turns smaller",
        "still": "the {name} rests where it is",
    },
}  # fmt: skip
SYNONYMS = {"circle": "sphere", "square": "cube", "triangle": "pyramid", "star": "asterisk", "ring": "donut", "cross": "sword"}
PHOTOGRAPH_SENTENCE = "the red circle moves left"
_SHARES = ("fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite")
_COUNTS = ("action_accuracy", "varied_text_accuracy", "named_sprite_accuracy", "motion", "seconds_per_clip")


@dataclass(frozen=True)
class Case:
    """One row: the protocol's settings that differ from the model's own, and what sentences are changed to."""

    name: str
    settings: dict = field(default_factory=dict)
    reword: Callable[[str], str] | None = None


class Reworded:
    """A pipeline that is told every sentence in other words."""

    def __init__(self, pipeline: Pipeline, reword: Callable[[str], str]):
        self.pipeline, self.reword = pipeline, reword
        self.device, self.encode, self.decode = pipeline.device, pipeline.encode, pipeline.decode

    def __call__(self, prompts: list[str], image: Tensor | None, **options) -> Tensor:
        return self.pipeline([self.reword(prompt) for prompt in prompts], image, **options)


def rewording(template: str, by_action: dict[str, str]) -> Callable[[str], str]:
    """Turns "the red circle moves left" into the words of a template."""

    def reword(sentence: str) -> str:
        action = next(a for a, wordings in WORDINGS.items() if sentence.endswith(f" {wordings[0]}"))
        said = WORDINGS[action][0]
        colour, shape = sentence.removeprefix("the ").removesuffix(f" {said}").split()
        return by_action.get(action, template).format(
            name=f"{colour} {shape}", colour=colour, synonym=SYNONYMS[shape], action=said
        )

    return reword


def tables(own: tuple[int, int]) -> dict[str, list[Case]]:
    width, height = own
    return {
        "Sizes": [Case(f"{w} x {h}", {"width": w, "height": h}) for w, h in SIZES],
        f"Frames, {width} x {height}": [Case(f"{n} frames", {"num_frames": n}) for n in FRAMES],
        f"Sprites cut by the border, {width} x {height}": [
            Case(f"centres from {CUT:g} of a side (training: 0.22)", {"margin": CUT})
        ],
        f"Sentences, {width} x {height}": [
            Case(name, reword=rewording(name, by_action)) for name, by_action in SAYINGS.items()
        ],
    }


def main(
    output: Annotated[Path, typer.Option(help="Folder for robustness.md.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    clips: Annotated[int, typer.Option(help="Scenes for every row.")] = 24,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
    photographs: Annotated[Path | None, typer.Option(help="A folder of pictures to try as well.")] = None,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    own = pipeline.config.sampling
    plan = tables((own.width, own.height))
    cases = [case for rows in plan.values() for case in rows]
    pictures = sorted(photographs.iterdir()) if photographs else []
    figures: dict[str, list[str]] = {}
    for case in track(cases, "measuring", console=Console(stderr=True)):
        figures[case.name] = _figures(pipeline, case, clips, seed)
        lines = list(_document(plan, figures, pictures, clips, seed, checkpoint))
        write_text(output / "robustness.part.md", "\n".join(lines))
    write_text(output / "robustness.md", "\n".join([*lines, *_of_photographs(pipeline, pictures, seed)]))
    (output / "robustness.part.md").unlink()


def _figures(pipeline: Pipeline, case: Case, clips: int, seed: int) -> list[str]:
    own = pipeline.config.sampling
    settings = {
        "height": own.height, "width": own.width, "num_frames": own.num_frames, "steps": own.steps,
        "text_scale": own.text_scale, "image_scale": own.image_scale, **case.settings,
    }  # fmt: skip
    protocol = Protocol(clips=clips, seed=seed, modes=("ti2v",), **settings)
    told = Reworded(pipeline, case.reword) if case.reword else pipeline
    means = summary(measure(told, protocol), protocol, "")["modes"]["ti2v"]
    shares = [f"{means[name] / means[f'{name}_ceiling']:.3f}" for name in _SHARES]
    return shares + [f"{means.get(name, math.nan):.3f}" for name in _COUNTS]


def _document(
    plan: dict[str, list[Case]], figures: dict[str, list[str]], pictures: list[Path], clips: int, seed: int, checkpoint: Path
) -> Iterator[str]:
    """The rows that `figures` has so far."""
    yield "# Other sizes, lengths and words, cut sprites, photographs\n"
    yield f"{clips} scenes of the test split with a picture and a sentence, at the model's own scales and steps. The first"
    yield "three figures are shares of what the autoencoder alone reaches."
    photographs = " --photographs FOLDER" if pictures else ""
    yield from provenance(f"robustness.py --clips {clips} --seed {seed}{photographs}", checkpoint)
    head = ["", *_SHARES, *_COUNTS]
    for title, cases in plan.items():
        rows = [[case.name, *figures[case.name]] for case in cases if case.name in figures]
        if rows:
            yield f"\n## {title}\n"
            yield from table(head, rows)
    yield ""


def _of_photographs(pipeline: Pipeline, pictures: list[Path], seed: int) -> Iterator[str]:
    if not pictures:
        return
    yield f"## Photographs, told {PHOTOGRAPH_SENTENCE!r}\n"
    head = ["", "fff_ssim", "the autoencoder alone", "last frame against the picture", "mean change, first to last frame"]
    yield from table(head, (_photograph(pipeline, path, seed) for path in pictures))
    yield ""


def _photograph(pipeline: Pipeline, path: Path, seed: int) -> list[str]:
    own = pipeline.config.sampling
    image = fit_image(read_image(path), own.height, own.width)
    with torch.no_grad():
        restored = pipeline.decode(pipeline.encode(image[None]))[0]
    made = pipeline(PHOTOGRAPH_SENTENCE, image, seed=seed)[0]
    similar = [float(first_frame_ssim(frame, image)) for frame in (made[:1], restored, made[-1:])]
    change = float((made[-1] - made[0]).abs().mean() / 2)
    return [path.stem, *(f"{x:.3f}" for x in (*similar, change))]


if __name__ == "__main__":
    typer.run(main)
