"""Memory and time of the full-size model in ComfyUI, by frames and size.

    python3 scripts/comfyui.py exec python benchmarks/full_size.py --output docs

writes full_size.md, or full_size_gpu.md on a CUDA device. The weights are random: neither figure depends on their values.
Every row is one guided step of three evaluations through the pack's nodes, in a model with its branch. Beside the peak
stands what ComfyUI expects for that many evaluations in one call: with less free memory than 1.5 times what it expects for
three it runs them one by one.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from gauge import Gauge
from host import BaseDirectory, InProcessComfyUI, releases
from pages import table
from random_checkpoint import random_checkpoint
from rich.console import Console
from rich.progress import track

from dreamvideo_core.config import PRESETS, ModelConfig
from dreamvideo_core.files import write_text

FRAMES = (1, 8, 16)
SIZES = (256, 512)
GIB = 2**30
_HEAD = ("size", "frames", "evaluations a call", "expected", "peak", "peak / expected", "seconds a step")


class Row(NamedTuple):
    """What one step took: evaluations in its largest call, bytes expected and bytes at the peak, seconds."""

    evaluations: int
    expected: int
    peak: int
    seconds: float


class Bench:
    """One model in ComfyUI and what a step of it takes."""

    def __init__(self, checkpoint: Path, base: Path, weight_dtype: str, config: ModelConfig):
        directory = BaseDirectory(base).prepare()
        (directory.models / "dreamvideo").mkdir()
        shutil.move(checkpoint, directory.models / "dreamvideo" / checkpoint.name)
        self.host, self.config = InProcessComfyUI(releases.locate(), directory), config
        self.model, _, _ = self.host.call("LoadDreamVideo", checkpoint=checkpoint.name, weight_dtype=weight_dtype)
        self.model.set_model_unet_function_wrapper(self._watch)
        self.shapes: list[torch.Size] = []
        self.gauge = Gauge(self.model.load_device)
        self.step(1, 64)  # weights go to their device, kernels are chosen
        self.loaded = self.gauge.now()

    def step(self, frames: int, size: int) -> Row:
        sentence, nothing = ([[torch.randn(1, 77, self.config.unet.cross_attention_dim), {}]] for _ in range(2))
        positive, negative, latent = self.host.call(
            "RetentionEncode",
            positive=sentence, negative=nothing, image=torch.rand(1, size, size, 3), width=size, height=size, frames=frames,
            batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
        )  # fmt: skip
        self.shapes.clear()
        self.gauge.reset()
        before, started = self.gauge.now(), time.monotonic()
        self.host.call(
            "DualCFGSampler",
            model=self.model, positive=positive, negative=negative, latent=latent, seed=0, steps=1, text_scale=9.0,
            image_scale=5.0, order="text_first", sampler="ddim", scheduler="simple", denoise=1.0, rescale=0.0,
        )  # fmt: skip
        seconds = time.monotonic() - started
        largest = max(self.shapes, key=math.prod)
        expected = self.model.model.memory_required(list(largest))
        return Row(largest[0] // frames, expected, self.gauge.peak() - before, seconds)

    def _watch(self, apply_model: Callable, arguments: dict) -> torch.Tensor:
        self.shapes.append(arguments["input"].shape)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])


def main(
    output: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("docs"),
    preset: Annotated[str, typer.Option(help="Which model.")] = "modelscope",
    weight_dtype: Annotated[str, typer.Option(help="As in Load DreamVideo.")] = "bf16",
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        random_checkpoint(preset, base / f"{preset}.safetensors")
        bench = Bench(base / f"{preset}.safetensors", base / "comfyui", weight_dtype, PRESETS[preset])
        cases = [(size, frames) for size in SIZES for frames in FRAMES]
        rows = {case: bench.step(case[1], case[0]) for case in track(cases, "measuring", console=Console(stderr=True))}
        name = "full_size_gpu.md" if bench.gauge.cuda else "full_size.md"
        write_text(output / name, "\n".join(_document(bench, preset, weight_dtype, rows)))


def _document(bench: Bench, preset: str, weight_dtype: str, rows: dict[tuple[int, int], Row]) -> Iterator[str]:
    device = torch.cuda.get_device_name() if bench.gauge.cuda else f"{torch.get_num_threads()} CPU cores"
    yield "# Memory and time of the full-size model in ComfyUI\n"
    yield f"Preset {preset} with its branch, weights {weight_dtype}, on {device}: {bench.loaded / GIB:.1f} GiB when loaded."
    yield "Peaks are above that, in GiB; `expected` is what ComfyUI reckons with before it runs a step. Made by"
    yield f"`python3 scripts/comfyui.py exec python benchmarks/full_size.py --preset {preset} --weight-dtype {weight_dtype}`."
    if bench.gauge.cuda:
        yield "Seconds are of first steps, which compile kernels or choose them."
    yield ""
    yield from table(_HEAD, (_cells(case, row) for case, row in rows.items()))
    yield ""


def _cells(case: tuple[int, int], row: Row) -> list[str]:
    size, frames = case
    return [
        f"{size} x {size}", str(frames), str(row.evaluations), f"{row.expected / GIB:.2f}", f"{row.peak / GIB:.2f}",
        f"{row.peak / row.expected:.2f}", f"{row.seconds:.1f}",
    ]  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
