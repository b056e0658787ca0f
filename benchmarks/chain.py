"""What a chain of stages loses on its way, what holds it, and what it costs in memory.

    python3 scripts/comfyui.py exec python benchmarks/chain.py --output docs

writes chain.md: a row a stage for each way to sample it, and the peak memory of a ComfyUI server by stages.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from host import BaseDirectory, Server, releases
from pages import provenance, table
from rich.console import Console
from rich.progress import track

from dreamvideo_core.common.files import write_text
from dreamvideo_core.evaluation.chain import MEASURES, ChainProtocol, measure_chains
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline

PICTURE = "dreamvideo_two_sprites.png"
LENGTHS = (2, 16)
SERVERS = 3
MIB = 2**20


def ways(default: ChainProtocol) -> dict[str, ChainProtocol]:
    too_high = replace(default, image_scale=3.0)
    return {
        "The model's own scales": default,
        "The model's own scales, with the colour anchor": replace(default, anchor=True),
        "Guided by the text alone: image_first, text 2, image 1": replace(
            default, order="image_first", text_scale=2.0, image_scale=1.0
        ),
        "Without guidance, scales 1 / 1": replace(default, text_scale=1.0, image_scale=1.0),
        "Image scale 3, which is too high": too_high,
        "Image scale 3, with the colour anchor": replace(too_high, anchor=True),
    }


def main(
    output: Annotated[Path, typer.Option(help="Folder for chain.md.")] = Path("docs"),
    checkpoint: Annotated[Path, typer.Option(help="A DreamVideo .safetensors file.")] = SHIPPED,
    chains: Annotated[int, typer.Option(help="Scenes for every table.")] = 16,
    stages: Annotated[int, typer.Option(help="Stages of each.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the scenes and of the noise.")] = 0,
) -> None:
    pipeline = Pipeline.load(checkpoint)
    default = ChainProtocol(chains=chains, stages=stages, seed=seed, **pipeline.config.sampling_options())
    bar = track(ways(default).items(), "measuring", console=Console(stderr=True))
    figures = {title: measure_chains(pipeline, protocol) for title, protocol in bar}
    peaks = {length: peak(length, default) for length in LENGTHS}
    write_text(output / "chain.md", "\n".join(_document(default, figures, peaks, checkpoint)))


def peak(stages: int, protocol: ChainProtocol) -> int:
    """Peak resident memory in bytes of a server that runs a chain of so many stages: the median of fresh ones."""
    return statistics.median(_peak_of_one(stages, protocol) for _ in range(SERVERS))


def _peak_of_one(stages: int, protocol: ChainProtocol) -> int:
    with tempfile.TemporaryDirectory() as folder:
        base = BaseDirectory(Path(folder)).prepare()
        with Server(releases.locate(), base) as server:
            server.client.run(_graph(stages, protocol))
            return server.peak_memory


def _frames_held(stages: int, protocol: ChainProtocol) -> int:
    """Bytes of frames that a server holds at the end of a chain."""
    stages_own, joined, hand_overs = stages * protocol.num_frames, 1 + stages * (protocol.num_frames - 1), stages
    return (stages_own + joined + hand_overs) * protocol.width * protocol.height * 3 * torch.float32.itemsize


def _graph(stages: int, protocol: ChainProtocol) -> dict:
    inputs = {
        "prompts": "\n".join(("the red circle moves right", "the red circle moves left")[n % 2] for n in range(stages)),
        "negative": "", "width": protocol.width, "height": protocol.height, "fit": "crop", "frames": protocol.num_frames,
        "seed": 0, "seeds": "", "steps": protocol.steps, "text_scale": protocol.text_scale,
        "image_scale": protocol.image_scale, "order": protocol.order, "sampler": "ddim", "scheduler": "simple",
        "rescale": 0.0, "seam": "merge", "colour_anchor": "off", "save_stages": False, "folder": "",
    }  # fmt: skip
    links = {"model": ["model", 0], "clip": ["model", 1], "vae": ["model", 2], "image": ["picture", 0]}
    return {
        "model": {
            "class_type": "LoadDreamVideo",
            "inputs": {"checkpoint": f"{SHIPPED.name} (shipped)", "weight_dtype": "default"},
        },
        "picture": {"class_type": "LoadImage", "inputs": {"image": PICTURE}},
        "chain": {"class_type": "VideoChain", "inputs": inputs | links},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["chain", 1], "filename_prefix": "chain"}},
    }


def _document(
    protocol: ChainProtocol, figures: dict[str, list[dict[str, float]]], peaks: dict[int, int], checkpoint: Path
) -> Iterator[str]:
    size = f"{protocol.width} x {protocol.height} x {protocol.num_frames}"
    yield "# What a chain loses on its way\n"
    yield f"{protocol.chains} chains of {protocol.stages} stages on the small world's test split, {size} a stage,"
    yield f"{protocol.steps} steps. fff_ssim is that of the frame handed over and the true one; brightness, contrast and"
    yield "saturation are those of that frame as shares of the true one's. action_done is read from the pixels wherever sprites"
    yield "stand, action_accuracy by the nearest true clip, so that drift counts as well (evaluate.md)."
    yield from provenance(f"chain.py --chains {protocol.chains} --stages {protocol.stages} --seed {protocol.seed}", checkpoint)
    for title, rows in figures.items():
        yield f"\n## {title}\n"
        yield from table(["stage", *MEASURES], [[str(k), *(f"{r[m]:.3f}" for m in MEASURES)] for k, r in enumerate(rows, 1)])
    yield "\n## Peak memory of a ComfyUI server\n"
    yield f"Medians of {SERVERS} fresh servers. ComfyUI keeps each stage's frames, all of them joined, and the hand-overs.\n"
    yield from table(
        ["stages", "MiB at the peak", "MiB of these frames"],
        [[str(n), f"{p / MIB:.0f}", f"{_frames_held(n, protocol) / MIB:.0f}"] for n, p in peaks.items()],
    )
    yield ""


if __name__ == "__main__":
    typer.run(main)
