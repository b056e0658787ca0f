"""Reports on the small world's protocol: tables, JSON and contact sheets."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..common.checks import InputError
from ..common.files import atomic, write_text
from ..media.images import contact_sheet, from_uint8
from ..sprites import sentence
from .chain import MEASURES, ChainProtocol
from .metrics import confidence_interval
from .protocol import Measurements, Protocol, Values

# The rows of the table; a mode without a measure has an empty cell.
_ROWS = (
    "fff_ssim", "fff_ssim_sprite", "clip_ssim_sprite", "action_accuracy", "varied_text_accuracy", "named_sprite_accuracy",
    "colour_found", "shape_found", "action_found", "motion", "background_drift", "seconds_per_clip",
)  # fmt: skip
_CAPTION_HEIGHT = 14  # pixels


def summary(measured: Measurements, protocol: Protocol, checkpoint: str) -> dict:
    """The report: means with 95 % intervals, over the clips that a measure applies to."""
    ceiling = _means(measured.ceiling)
    modes = {}
    for mode, values in measured.modes.items():
        means = _means(values)
        ceilings = {f"{name}_ceiling": ceiling[name] for name in means if name in ceiling}
        seconds = {"seconds_per_clip": measured.seconds[mode] / len(measured.clips)}
        modes[mode] = means | ceilings | seconds | {"intervals": _intervals(values)}
    return {
        "checkpoint": checkpoint,
        "scales": {"text": protocol.text_scale, "image": protocol.image_scale},
        "protocol": asdict(protocol),
        "autoencoder_psnr": ceiling["psnr"],
        "chance": sum(measured.chance) / len(measured.chance),
        "frozen": _means(measured.frozen),
        "modes": modes,
    }


def _without_nan(values: Values) -> Values:
    columns = {name: [v for v in column if not math.isnan(v)] for name, column in values.items()}
    return {name: column for name, column in columns.items() if column}


def _means(values: Values) -> dict[str, float]:
    return {name: sum(column) / len(column) for name, column in _without_nan(values).items()}


def _intervals(values: Values) -> dict[str, tuple[float, float]]:
    return {name: confidence_interval(column) for name, column in _without_nan(values).items()}


def as_table(report: dict) -> Table:
    """One row per measure; columns for the modes, the frozen first frame, and the autoencoder alone (ceiling)."""
    p = report["protocol"]
    size = f"{p['width']} x {p['height']} x {p['num_frames']}"
    scales = f"scales {p['text_scale']:g} / {p['image_scale']:g}, {p['steps']} steps"
    table = Table(box=SIMPLE_HEAD, title=f"{report['checkpoint']}: {p['clips']} clips, {size}, {scales}")
    table.add_column("measure", no_wrap=True)
    for column in (*report["modes"], "frozen", "ceiling"):
        table.add_column(column, justify="right")
    ceilings = {k: v for mode in report["modes"].values() for k, v in mode.items() if k.endswith("_ceiling")}
    for name in _ROWS:
        cells = [_cell(mode, name) for mode in report["modes"].values()]
        if any(cells):
            table.add_row(name, *cells, _cell(report["frozen"], name), _cell(ceilings, f"{name}_ceiling"))
    table.caption = (
        f"autoencoder {report['autoencoder_psnr']:.1f} dB; a guess finds the action in {report['chance']:.3f}. "
        "After ±: half of the 95 % interval. t2v: what is found is read by rendering every sprite that could cover "
        "the coloured pixels."
    )
    return table


def chain_summary(stages: list[dict[str, float]], protocol: ChainProtocol, checkpoint: str) -> dict:
    """The report on chains; `stages` is what `measure_chains` returned."""
    return {
        "checkpoint": checkpoint,
        "scales": {"text": protocol.text_scale, "image": protocol.image_scale},
        "protocol": asdict(protocol),
        "stages": stages,
    }


def as_chain_table(report: dict) -> Table:
    """One row per stage."""
    p = report["protocol"]
    size = f"{p['width']} x {p['height']} x {p['num_frames']}"
    anchor = "anchored" if p["anchor"] else "not anchored"
    chains = "1 chain" if p["chains"] == 1 else f"{p['chains']} chains"
    title = f"{report['checkpoint']}: {chains}, {size} a stage, colours {anchor}"
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, title=title)  # fits into 80 columns
    table.add_column("stage", justify="right")
    for name in MEASURES:
        table.add_column(name, justify="right")
    for number, row in enumerate(report["stages"], 1):
        table.add_row(str(number), *(f"{row[name]:.3f}" for name in MEASURES))
    table.caption = (
        "fff_ssim: the frame handed over and the true one. action_done: read from the pixels, wherever the sprites stand; "
        "action_accuracy: by the nearest true clip, so drift counts as well. Brightness, contrast and saturation: of the frame "
        "handed over, as a share of the true one's."
    )
    return table


def _cell(values: dict, name: str) -> str:
    if name not in values:
        return ""
    interval = values.get("intervals", {}).get(name)
    return f"{values[name]:.3f}" + (f" ±{(interval[1] - interval[0]) / 2:.3f}" if interval else "")


def write_json(report: dict, path: Path) -> None:
    """Write any report as a JSON file."""
    write_text(path, json.dumps(report, indent=2) + "\n")


def write_sheets(measured: Measurements, folder: Path, rows: int = 4) -> list[Path]:
    """Write best.png, median.png and worst.png by `clip_ssim_sprite`: true clips above those from text and image.

    Returns their paths. Raises `InputError` if no clips were made from text and image.
    """
    if not measured.made:
        raise InputError("sheets show clips made from text and image, and mode ti2v was not measured; measure it too")
    order = torch.tensor(measured.modes["ti2v"]["clip_ssim_sprite"]).argsort(descending=True).tolist()
    middle = max(0, (len(order) - rows) // 2)
    chosen = {"best": order[:rows], "median": order[middle : middle + rows], "worst": order[-rows:]}
    paths = []
    for name, indices in chosen.items():
        paths.append(folder / f"{name}.png")
        with atomic(paths[-1]) as temporary:
            _sheet(measured, indices).save(temporary)
    return paths


def _sheet(measured: Measurements, indices: list[int]) -> Image.Image:
    strips = [_strip(measured, index) for index in indices]
    sheet = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)), "white")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (0, number * strip.height))
    return sheet


def _strip(measured: Measurements, index: int) -> Image.Image:
    frames = from_uint8(torch.cat([measured.true[index], measured.made[index]]))
    pictures = contact_sheet(frames, columns=len(measured.true[index]))
    strip = Image.new("RGB", (pictures.width, pictures.height + _CAPTION_HEIGHT), "white")
    strip.paste(pictures, (0, _CAPTION_HEIGHT))
    score = measured.modes["ti2v"]["clip_ssim_sprite"][index]
    ImageDraw.Draw(strip).text((2, 1), f"{index}: {sentence(measured.clips[index])} ({score:.2f})", fill="black")
    return strip
