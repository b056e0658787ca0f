"""What was measured, as a table, as JSON and as contact sheets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..files import atomic
from ..images import contact_sheet
from ..sprites import sentence
from .metrics import bootstrap_interval
from .protocol import Measured, Protocol, Values

# Rows of the table, in order; a measure that a mode does not have is left blank there.
_ROWS = (
    "fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "named_sprite_accuracy",
    "colour_accuracy", "shape_accuracy", "motion", "background_drift", "seconds_per_clip",
)  # fmt: skip
_CAPTION = 14


def summary(measured: Measured, protocol: Protocol, checkpoint: str) -> dict:
    """Means with 95 % bootstrap intervals; values that do not apply to a clip are left out of its mean."""
    modes = {mode: _means(measured.modes[mode]) for mode in protocol.modes}
    for mode, table in modes.items():
        table["seconds_per_clip"] = measured.seconds[mode] / len(measured.clips)
        for name, value in _means(measured.ceilings, intervals=False).items():
            if name in table:
                table[f"{name}_ceiling"] = value
    return {
        "checkpoint": checkpoint,
        "scales": {"text": protocol.text_scale, "image": protocol.image_scale, "order": protocol.order},
        "clips": protocol.clips,
        "seed": protocol.seed,
        "width": protocol.width,
        "height": protocol.height,
        "frames": protocol.num_frames,
        "steps": protocol.steps,
        "autoencoder_psnr": _means(measured.ceilings, intervals=False)["psnr"],
        "chance": sum(measured.chance) / len(measured.chance),
        "modes": modes,
    }


def _means(values: Values, intervals: bool = True) -> dict:
    applying = {name: [v for v in column if not math.isnan(v)] for name, column in values.items()}
    means: dict = {name: sum(column) / len(column) for name, column in applying.items() if column}
    if intervals:
        means["intervals"] = {name: bootstrap_interval(applying[name]) for name in means}
    return means


def as_table(report: dict) -> Table:
    """One row a measure, one column a mode, what the autoencoder alone reaches in the last column."""
    size = f"{report['width']} x {report['height']} x {report['frames']}"
    scales = f"scales {report['scales']['text']:g} / {report['scales']['image']:g}, {report['steps']} steps"
    table = Table(box=SIMPLE_HEAD, title=f"{report['checkpoint']}: {report['clips']} clips, {size}, {scales}")
    table.add_column("measure", no_wrap=True)
    for mode in report["modes"]:
        table.add_column(mode, justify="right")
    table.add_column("ceiling", justify="right")
    for name in _ROWS:
        cells = [_cell(values, name) for values in report["modes"].values()]
        ceilings = {values.get(f"{name}_ceiling") for values in report["modes"].values()} - {None}
        if any(cells):
            table.add_row(name, *cells, *(f"{ceiling:.3f}" for ceiling in ceilings))
    table.caption = (
        f"autoencoder {report['autoencoder_psnr']:.1f} dB; action by chance {report['chance']:.3f}; "
        "after ±: half of the 95 % bootstrap interval. t2v: colour, shape and action are read by rendering "
        "every sprite that could cover the coloured pixels."
    )
    return table


def _cell(values: dict, name: str) -> str:
    if name not in values:
        return ""
    low, high = values["intervals"].get(name, (0.0, 0.0))
    return f"{values[name]:.3f}" + (f" ±{(high - low) / 2:.3f}" if name in values["intervals"] else "")


def write_json(report: dict, path: Path) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def write_sheets(measured: Measured, folder: Path, rows: int = 4) -> list[Path]:
    """best.png, median.png and worst.png by `clip_ssim_sprite`: the true clip above the one made from text and image."""
    order = torch.tensor(measured.modes["ti2v"]["clip_ssim_sprite"]).argsort(descending=True).tolist()
    middle = max(0, (len(order) - rows) // 2)
    chosen = {"best": order[:rows], "median": order[middle : middle + rows], "worst": order[-rows:]}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, indices in chosen.items():
        path = folder / f"{name}.png"
        with atomic(path) as temporary:
            _sheet(measured, indices).save(temporary)
        paths.append(path)
    return paths


def _sheet(measured: Measured, indices: list[int]) -> Image.Image:
    strips = [_strip(measured, index) for index in indices]
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def _strip(measured: Measured, index: int) -> Image.Image:
    frames = torch.cat([measured.true[index], measured.made[index]]).float() / 127.5 - 1
    pictures = contact_sheet(frames, columns=len(measured.true[index]))
    strip = Image.new("RGB", (pictures.width, pictures.height + _CAPTION), "white")
    strip.paste(pictures, (0, _CAPTION))
    score = measured.modes["ti2v"]["clip_ssim_sprite"][index]
    ImageDraw.Draw(strip).text((2, 1), f"{index}: {sentence(measured.clips[index])} ({score:.2f})", fill="black")
    return strip
