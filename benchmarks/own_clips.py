"""The way from a user's video files to a model in ComfyUI, walked from end to end in the small world.

    python3 scripts/comfyui.py exec python benchmarks/own_clips.py --output docs

writes own_clips.md, its curve own_clips.png and own_clips_sheet.png. Scenes are encoded to .mp4 files with captions beside
them, some of them broken, too short or still. `dreamvideo` then does what a user would have it do: it looks at the clips,
makes a text-to-video model out of the shipped one by leaving its retention branch out, and trains it with a new branch by
benchmarks/own_clips.toml. Both models are opened in a ComfyUI server at last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from own_clips_files import Written, write_files
from own_clips_host import measure_in_comfyui
from PIL import Image
from rich.console import Console

from dreamvideo_core.common.files import atomic, write_text
from dreamvideo_core.media.images import to_picture
from dreamvideo_core.media.plot import Curve, frame_plot
from dreamvideo_core.sampling.pipeline import SHIPPED
from dreamvideo_core.training.recipe_files import load_recipe

RECIPE = Path(__file__).with_suffix(".toml")
TEXT_TO_VIDEO = "unet,text_encoder,vae"
BAR = 0.05  # of the time, waiting for data with two readers
_CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Training:
    """What the commands said, how long training took in seconds, and the lines of its log."""

    check: str
    said: str
    seconds: float
    log: list[dict]

    @property
    def steps(self) -> list[dict]:
        return [line for line in self.log if "loss" in line]

    @property
    def fidelity(self) -> list[dict]:
        """A line at every look at the held-out clips."""
        return [line for line in self.log if "fff_ssim" in line]

    def mean(self, figure: str) -> float:
        """Every line is a mean over as many steps."""
        return sum(line[figure] for line in self.steps) / len(self.steps)


def main(
    output: Annotated[Path, typer.Option(help="Folder for own_clips.md and its pictures.")] = Path("docs"),
    clips: Annotated[int, typer.Option(min=12, help="Good clips; odd ones come on top.")] = 400,
    steps: Annotated[int, typer.Option(min=1, help="Of training.")] = 1600,
    sample_every: Annotated[int, typer.Option(min=1, help="Steps between two looks at the held-out clips.")] = 200,
    pictures: Annotated[int, typer.Option(min=1, help="That are animated in ComfyUI by each model.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the scenes.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="A new folder for all that is made.", show_default="none is kept")] = None,
) -> None:
    with tempfile.TemporaryDirectory() if keep is None else nullcontext(keep) as folder:
        work = Path(folder).absolute()
        _CONSOLE.print(f"writing {clips} clips to {work}")
        written = write_files(work / "clips", clips, seed)
        start = work / "text_to_video.safetensors"
        _dreamvideo("convert", SHIPPED, start, "--parts", TEXT_TO_VIDEO)
        training = _train(work, start, steps, sample_every)
        models = {"before": start, "after": work / "run" / "0-retention.safetensors"}
        hosted = measure_in_comfyui(models, work / "comfyui", pictures, seed)
        _write(output, work, written, training, hosted, _command(clips, steps, sample_every, pictures, seed))


def _train(work: Path, start: Path, steps: int, sample_every: int) -> Training:
    data = ("--data", work / "clips", "--output", work / "run")
    check = _dreamvideo("train", RECIPE, *data, "--check-data")
    changes = ("--set", f"retention.steps={steps}", "--set", f"retention.sample_every={sample_every}")
    changes += ("--set", f"retention.log_every={min(20, steps)}")
    started = time.monotonic()
    said = _dreamvideo("train", RECIPE, *data, "--start", start, *changes)
    seconds = time.monotonic() - started
    log = (work / "run" / "retention" / "log.jsonl").read_text().splitlines()
    return Training(check, said, seconds, [json.loads(line) for line in log])


def _dreamvideo(*arguments: object) -> str:
    """Run the command line; what it printed."""
    words = [str(argument) for argument in arguments]
    _CONSOLE.print(f"dreamvideo {' '.join(words)}", soft_wrap=True)
    command = [sys.executable, "-m", "dreamvideo_core.cli", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "COLUMNS": "120"}).stdout


def _command(clips: int, steps: int, sample_every: int, pictures: int, seed: int) -> str:
    settings = f"--clips {clips} --steps {steps} --sample-every {sample_every} --pictures {pictures} --seed {seed}"
    return f"python3 scripts/comfyui.py exec python benchmarks/own_clips.py {settings}"


def _write(
    output: Path, work: Path, written: Written, training: Training, hosted: dict[str, list[float]], command: str
) -> None:
    with atomic(output / "own_clips.png") as temporary:
        _plot(training).save(temporary)
    with atomic(output / "own_clips_sheet.png") as temporary:
        shutil.copyfile(max((work / "run" / "retention" / "samples").iterdir()), temporary)  # named by their steps
    lines = _document(written, training, hosted, command)
    write_text(output / "own_clips.md", "\n".join(lines).replace(f"{work}/", ""))


def _plot(training: Training) -> Image.Image:
    found = training.fidelity
    steps = [line["step"] for line in found]
    curves = [
        Curve("FFF_SSIM of held-out clips", [line["fff_ssim"] for line in found]),
        Curve("through the autoencoder alone", [line["fff_ssim_ceiling"] for line in found]),
    ]
    plot = frame_plot(curves, across="step", every=steps[1] - steps[0] if len(steps) > 1 else 1)
    return to_picture(plot[0])


def _document(written: Written, training: Training, hosted: dict[str, list[float]], command: str) -> Iterator[str]:
    yield "# From video files to a model in ComfyUI, in the small world\n"
    yield f"Made by `{command}` on {len(os.sched_getaffinity(0))} of {os.cpu_count()} CPU cores."
    yield "Its commands are those of [Train your own](train_your_own.md), its recipe is `benchmarks/own_clips.toml`. It begins"
    yield "with the shipped model without its retention branch, made by"
    yield f"`dreamvideo convert dreamvideo_core/assets/{SHIPPED.name} start.safetensors --parts {TEXT_TO_VIDEO}`;"
    yield "temporal layers and a new branch are trained, at 64 x 64 x 8.\n"
    yield "![First frame fidelity over steps](own_clips.png)\n"
    step = training.fidelity[-1]["step"]
    yield f"Four held-out clips after step {step}: each the true one, then made from its sentence, its picture, and both. First"
    yield "frames are kept, which is what FFF_SSIM sees; shapes that move lose their outlines.\n"
    yield "![Four held-out clips](own_clips_sheet.png)\n"
    yield "| what | measured |"
    yield "| --- | --- |"
    for what, measured in (*_training_rows(written, training), *_fidelity_rows(training, hosted)):
        yield f"| {what} | {measured} |"
    yield "\nIn ComfyUI it is what First Frame Fidelity says behind Load DreamVideo, Retention Encode and Dual CFG Sampler."
    yield "Before training, when there is no branch, clips are made from the sentence alone, and a plain grey ground"
    yield "earns much of the SSIM.\n"
    yield "## What the look at the clips said\n"
    yield _quoted(training.check)
    yield "## What training said\n"
    yield _quoted(training.said)


def _training_rows(written: Written, training: Training) -> Iterator[tuple[str, str]]:
    frames = f"{written.shortest} to {written.longest} frames"
    yield "video files", f"{written.good} good ones of {frames}, {written.odd} odd ones"
    yield f"steps of {load_recipe(RECIPE).phases[0].batch_size} clips", str(training.steps[-1]["step"])
    yield "`dreamvideo train` in all: caches, steps and samples", f"{training.seconds:.0f} s"
    yield "clips a second in steps", f"{training.mean('clips_per_second'):.1f}"
    yield f"share of steps spent waiting for data, 2 readers (bar {BAR:.0%})", f"{training.mean('data_share'):.2%}"
    yield "loss in the first and the last line of the log", " and ".join(f"{training.steps[n]['loss']:.4f}" for n in (0, -1))


def _fidelity_rows(training: Training, hosted: dict[str, list[float]]) -> Iterator[tuple[str, str]]:
    first, last = training.fidelity[0], training.fidelity[-1]
    yield "FFF_SSIM of held-out clips before the first step", f"{first['fff_ssim']:.3f}"
    yield f"the same after step {last['step']}", f"{last['fff_ssim']:.3f}"
    yield "its ceiling: the pictures through the autoencoder alone", f"{last['fff_ssim_ceiling']:.3f}"
    scenes = f"in a ComfyUI server, {len(hosted['after'])} other scenes"
    for when, name in (("before training", "before"), ("after training", "after"), ("ceiling", "ceiling")):
        yield f"{scenes}: FFF_SSIM, {when}", f"{sum(hosted[name]) / len(hosted[name]):.3f}"


def _quoted(text: str) -> str:
    """As a code block, without empty lines at its ends and spaces at those of lines."""
    lines = (line.rstrip() for line in text.strip("\n").splitlines())
    return "\n".join(f"    {line}".rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    typer.run(main)
