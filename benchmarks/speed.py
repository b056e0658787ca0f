"""The speed of the model, of guidance and of loading, as ratios against what a user would run instead.

    python3 scripts/comfyui.py exec python benchmarks/speed.py --output docs

prints a table for each row when it is measured, every figure beside its bar, and writes all figures so far to speed.md, or
to speed_gpu.md on a CUDA device. Compared calls take turns in one run; that they return the same is a figure of its own. On a
CUDA device the full-size rows run in bfloat16 and float16, else in float32; `compiled` and `diffusers_compiled`, which take
minutes, run in bfloat16 or float32, and on a CPU only where they are asked for. A CPU that computes in bfloat16 has the row
`forward` in it too, and the row `bf16_on_cpu`.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from pages import table
from rich.console import Console
from rich.table import Table
from speed_rows import (
    FullSize,
    Machine,
    Measure,
    bf16_on_cpu,
    compiled,
    diffusers_compiled,
    forward,
    growth,
    guided_step,
    in_comfyui,
    loading,
    start_of_comfyui,
    whole_clip,
)

from dreamvideo_core.common.files import write_text
from dreamvideo_core.models.precision import cpu_computes_in_bfloat16

HEAD = ("figure", "measured", "bar", "held")
COMPILED = ("compiled", "diffusers_compiled")
ROWS = ("forward", "guided_step", *COMPILED, "whole_clip", "growth", "loading", "start_of_comfyui", "in_comfyui", "bf16_on_cpu")
Job = Callable[[], Iterator[Measure]]


def main(
    rows: Annotated[
        str | None,
        typer.Option(help=f"Which of {', '.join(ROWS)}, separated by commas.", show_default="all that the device is for"),
    ] = None,
    preset: Annotated[str, typer.Option(help="The model of the full-size rows.")] = "modelscope",
    size: Annotated[int | None, typer.Option(help="Their width and height.", show_default="256; on a GPU 512")] = None,
    frames: Annotated[int | None, typer.Option(help="Their frames.", show_default="8; on a GPU 16")] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Rounds of which medians are taken.", show_default="3; on a GPU 9")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for speed.md.", show_default="only printed")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file too.")] = None,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    asked = rows.split(",") if rows else [row for row in ROWS if row not in _left_out(on_gpu)]
    unknown = sorted(set(asked) - set(ROWS))
    if unknown:
        raise typer.BadParameter(f"--rows has {', '.join(unknown)}; allowed: {', '.join(ROWS)}")
    torch.set_grad_enabled(False)
    shape = size or (512 if on_gpu else 256), frames or (16 if on_gpu else 8)
    repeats = repeats or (9 if on_gpu else 3)
    console, figures = Console(width=140), {}
    for name, job in _jobs(asked, preset, shape, repeats, device):
        figures[name] = []
        for measure in job():
            figures[name].append(measure)  # a row that is stopped keeps what it has
            if json_file:
                write_text(json_file, json.dumps(_record(figures, device, preset, shape), indent=2))
            if output:
                lines = _document(figures, device, preset, shape, repeats)
                write_text(output / ("speed_gpu.md" if on_gpu else "speed.md"), "\n".join(lines))
        console.print(_table(name, figures[name]))


def _jobs(
    rows: list[str], preset: str, shape: tuple[int, int], repeats: int, device: torch.device
) -> Iterator[tuple[str, Job]]:
    """The rows in order; the full-size model is made once for each precision and let go."""
    single = Machine(device, torch.float32, repeats)
    for dtype, of_dtype in _full_size_rows(device.type == "cuda").items():
        chosen = [row for row in of_dtype if row.__name__ in rows]
        full = FullSize(preset, Machine(device, dtype, repeats), *shape) if chosen else None
        for row in chosen:
            yield f"{row.__name__}, {str(dtype).removeprefix('torch.')}", lambda row=row, full=full: row(full)
        del full
    others: dict[str, Job] = {
        "whole_clip": lambda: whole_clip(single, preset),
        "growth": lambda: growth(single, preset),
        "loading": lambda: loading(single, preset),
        "start_of_comfyui": start_of_comfyui,
        "in_comfyui": lambda: in_comfyui(single),
        "bf16_on_cpu": lambda: bf16_on_cpu(single, preset),
    }
    yield from ((name, job) for name, job in others.items() if name in rows)


def _full_size_rows(on_gpu: bool) -> dict[torch.dtype, tuple[Callable[[FullSize], Iterator[Measure]], ...]]:
    """The rows of `FullSize` in each precision."""
    rows = (forward, guided_step, compiled, diffusers_compiled)
    if on_gpu:
        return {torch.bfloat16: rows, torch.float16: rows[:2]}
    return {torch.float32: rows} | ({torch.bfloat16: rows[:1]} if cpu_computes_in_bfloat16() else {})


def _left_out(on_gpu: bool) -> tuple[str, ...]:
    """Rows that run only where they are asked for."""
    if on_gpu:
        return ("bf16_on_cpu",)
    return COMPILED if cpu_computes_in_bfloat16() else (*COMPILED, "bf16_on_cpu")


def _table(name: str, measures: list[Measure]) -> Table:
    shown = Table(*HEAD, title=name, title_justify="left", min_width=100)
    for measure in measures:
        shown.add_row(measure.what, *_cells(measure))
    return shown


def _cells(measure: Measure) -> tuple[str, str, str]:
    value = f"{measure.value:.3g}{' ' * bool(measure.unit)}{measure.unit}"
    if measure.bar is None:
        return value, "", ""
    return value, f"{'at most' if measure.at_most else 'at least'} {measure.bar:g}", "yes" if measure.held else "NO"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU cores"


def _document(
    figures: dict[str, list[Measure]], device: torch.device, preset: str, shape: tuple[int, int], repeats: int
) -> Iterator[str]:
    size, frames = shape
    yield "# Speed and memory, ours against diffusers and against separate passes\n"
    yield f"Times on {_name(device)}, medians of {repeats}; torch {torch.__version__}. The preset {preset} with random weights"
    yield f"has the rows forward, guided_step, compiled and diffusers_compiled ({size} x {size} x {frames}) and loading, and on"
    yield "a GPU whole_clip and growth (bfloat16, its own size); the shipped model has the others. Compared calls took turns in"
    yield "one run, and what they returned was compared. On a CPU bf16_on_cpu is of the preset in ComfyUI. Made by"
    rows = ",".join(dict.fromkeys(name.split(",")[0] for name in figures))
    command = f"benchmarks/speed.py --rows {rows} --preset {preset} --size {size} --frames {frames} --repeats {repeats}"
    yield f"`python3 scripts/comfyui.py exec python {command}`."
    for name, measures in figures.items():
        yield f"\n## {name}\n"
        yield from table(HEAD, [[measure.what, *_cells(measure)] for measure in measures])
    yield ""


def _record(figures: dict[str, list[Measure]], device: torch.device, preset: str, shape: tuple[int, int]) -> dict:
    return {
        "device": _name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "full_size": {"preset": preset, "size": shape[0], "frames": shape[1]},
        "rows": {
            row: [{"what": m.what, "value": m.value, "unit": m.unit, "bar": m.bar, "held": m.held} for m in measures]
            for row, measures in figures.items()
        },
    }


if __name__ == "__main__":
    typer.run(main)
