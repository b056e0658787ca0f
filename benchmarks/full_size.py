"""Memory and time of the full-size model in ComfyUI, by frames and size.

    python3 scripts/comfyui.py exec python benchmarks/full_size.py --output docs

writes full_size.md, or full_size_gpu.md on a CUDA device. The weights are random: neither figure depends on their values.
Every row is a guided step of three evaluations through the pack's nodes, in a model with its branch: one step on a CPU, the
mean of ten behind others on a GPU, there with and without `cuda_graphs` of Load DreamVideo. Beside the peak stands what ComfyUI
expects for that many evaluations in one call: with less free memory than 1.5 times what it expects for three it runs them one
by one.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import torch
import typer
from gauge import Gauge
from host import comfyui_in_process
from pages import table
from random_checkpoint import random_checkpoint
from rich.console import Console
from rich.progress import track

from dreamvideo_core.common.files import write_text
from dreamvideo_core.models.config import PRESETS, ModelConfig

FRAMES = (1, 8, 16)
SIZES = (256, 512)
GIB = 2**30
STEPS = 10  # of a run that is timed on a GPU
_HEAD = ("size", "frames", "evaluations a call", "expected", "peak", "peak / expected", "seconds a step")
_HEAD_GRAPHED = ("peak, CUDA graphs", "seconds a step, CUDA graphs")


class Row(NamedTuple):
    """What steps took: evaluations in their largest call, bytes expected and bytes at the peak, seconds each."""

    evaluations: int
    expected: int
    peak: int
    seconds: float


class Bench:
    """One model in ComfyUI, on a GPU once more with CUDA graphs, and what steps of it take."""

    def __init__(self, checkpoint: Path, base: Path, weight_dtype: str, config: ModelConfig):
        self.host, self.config = comfyui_in_process(base), config
        shutil.move(checkpoint, self.host.base.models / "dreamvideo" / checkpoint.name)
        self.model = self._load(checkpoint.name, weight_dtype)
        self.gauge = Gauge(self.model.load_device)
        self.graphed = self._load(checkpoint.name, weight_dtype, cuda_graphs=True) if self.gauge.cuda else None
        self.shapes: list[torch.Size] = []
        self._run(self.model, 1, 64, 1)  # weights go to their device, kernels are chosen
        self.loaded = self.gauge.now()

    def _load(self, name: str, weight_dtype: str, **options: bool) -> Any:
        model, _, _ = self.host.call("LoadDreamVideo", checkpoint=name, weight_dtype=weight_dtype, **options)
        model.set_model_unet_function_wrapper(self._watch)
        return model

    def rows(self, frames: int, size: int) -> list[Row]:
        """Of the model, and of the one with graphs where there is one."""
        return [self._row(model, frames, size) for model in (self.model, self.graphed) if model is not None]

    def _row(self, model: Any, frames: int, size: int) -> Row:
        steps = 1
        if self.gauge.cuda:
            self._run(model, frames, size, 2)
            steps = STEPS
        self.shapes.clear()
        self.gauge.reset()
        before = self.gauge.now()
        seconds = self._run(model, frames, size, steps) / steps
        largest = max(self.shapes, key=math.prod)
        return Row(largest[0] // frames, model.model.memory_required(list(largest)), self.gauge.peak() - before, seconds)

    def _run(self, model: Any, frames: int, size: int, steps: int) -> float:
        """Seconds of a run."""
        sentence, nothing = ([[torch.randn(1, 77, self.config.unet.cross_attention_dim), {}]] for _ in range(2))
        positive, negative, latent = self.host.call(
            "RetentionEncode",
            positive=sentence, negative=nothing, image=torch.rand(1, size, size, 3), width=size, height=size, frames=frames,
            batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
        )  # fmt: skip
        started = time.monotonic()
        self.host.call(
            "DualCFGSampler",
            model=model, positive=positive, negative=negative, latent=latent, seed=0, steps=steps, text_scale=9.0,
            image_scale=5.0, order="text_first", sampler="ddim", scheduler="simple", denoise=1.0, rescale=0.0,
        )  # fmt: skip
        return time.monotonic() - started

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
        rows = {case: bench.rows(case[1], case[0]) for case in track(cases, "measuring", console=Console(stderr=True))}
        name = "full_size_gpu.md" if bench.gauge.cuda else "full_size.md"
        write_text(output / name, "\n".join(_document(bench, preset, weight_dtype, rows)))


def _document(bench: Bench, preset: str, weight_dtype: str, rows: dict[tuple[int, int], list[Row]]) -> Iterator[str]:
    loaded = f"{bench.loaded / GIB:.1f} GiB when loaded"
    yield "# Memory and time of the full-size model in ComfyUI\n"
    yield f"Preset {preset} with its branch, weights {weight_dtype}, on {_device(bench)}: {loaded}."
    yield "Peaks are above that, in GiB; `expected` is what ComfyUI reckons with before it runs a step of three"
    yield "evaluations, which it runs one by one where less than 1.5 times as much is free. Made by"
    yield f"`python3 scripts/comfyui.py exec python benchmarks/full_size.py --preset {preset} --weight-dtype {weight_dtype}`."
    if bench.gauge.cuda:
        yield f"Seconds are the mean of {STEPS} steps, with CUDA graphs among them the first two, in which passes are recorded."
    else:
        yield "Seconds are of one step. At 512 x 512 ComfyUI's attention on a CPU makes its tables of scores as large as the"
        yield "free memory allows, so that peaks above what is expected do not mean that memory runs out."
    yield ""
    yield from table(_HEAD + (_HEAD_GRAPHED if bench.gauge.cuda else ()), (_cells(case, of) for case, of in rows.items()))
    yield ""


def _device(bench: Bench) -> str:
    if bench.gauge.cuda:
        return f"{torch.cuda.get_device_name()} with {torch.cuda.mem_get_info()[1] / GIB:.0f} GiB"
    return f"{torch.get_num_threads()} CPU cores with {psutil.virtual_memory().total / GIB:.0f} GiB"


def _cells(case: tuple[int, int], rows: list[Row]) -> list[str]:
    (size, frames), (row, *graphed) = case, rows
    return [
        f"{size} x {size}", str(frames), str(row.evaluations), f"{row.expected / GIB:.2f}", f"{row.peak / GIB:.2f}",
        f"{row.peak / row.expected:.2f}", f"{row.seconds:.3g}",
        *(cell for row in graphed for cell in (f"{row.peak / GIB:.2f}", f"{row.seconds:.3g}")),
    ]  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
