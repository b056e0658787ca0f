"""Whether memory grows: many prompts of mixed sizes through one ComfyUI server, by the pack's nodes and by stock ones.

    python3 scripts/comfyui.py exec python benchmarks/soak.py

queues 600 prompts, none of which is cached, first for the shipped model and then for a small Stable Diffusion 1 model with
stock nodes; both get the same sizes, lengths and seeds, and every fifth prompt is a chain of two. It prints one table: resident
memory after every 50 prompts (Linux). With `--explain` the file of `--json` has what of it is in use, too, as a probe node
says; with `--trim` the probe has glibc give its free memory back first, which changes what is measured.
"""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from host import BaseDirectory, Server, releases
from pages import table
from rich.console import Console
from rich.progress import track
from stock_model import write_stock_model

from dreamvideo_core.common.files import write_text

PICTURE, STOCK = "dreamvideo_two_sprites.png", "stock.safetensors"
SENTENCES = ("the red circle moves right", "the blue square grows", "the green star moves up", "the yellow ring shrinks")
FIRST, LAST = 200, 600  # prompts, between which growth counts
CHAIN_EVERY = 5
_PROBE = Path(__file__).parent / "memory_probe"
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class Order:
    """One prompt: what is made, of which size in pixels and frames, from which seed."""

    number: int
    width: int
    height: int
    frames: int
    seed: int
    sentences: tuple[str, str]

    @property
    def is_chain(self) -> bool:
        return self.number % CHAIN_EVERY == CHAIN_EVERY - 1


@dataclass(frozen=True)
class Memory:
    """Of a process, in bytes: all resident memory, and the anonymous part, which is no file's."""

    prompts: int
    resident: int
    anonymous: int
    probed: dict = field(default_factory=dict)


def orders(count: int, seed: int) -> list[Order]:
    """Sizes from 64 to 128 pixels, lengths from 4 to 12 frames, no seed twice."""
    rng = random.Random(seed)
    sides = range(64, 129, 8)
    return [
        Order(
            number, rng.choice(sides), rng.choice(sides), rng.randint(4, 12), 2 * number,
            (rng.choice(SENTENCES), rng.choice(SENTENCES)),
        )
        for number in range(count)
    ]  # fmt: skip


def main(
    prompts: Annotated[int, typer.Option(help="Prompts for each model.")] = LAST,
    every: Annotated[int, typer.Option(help="Memory is read after so many prompts.")] = 50,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the sizes, lengths and sentences.")] = 0,
    models: Annotated[str, typer.Option(help="Which to measure, of ours,stock.")] = "ours,stock",
    explain: Annotated[bool, typer.Option(help="Ask a probe node what is in use, for --json.")] = False,
    trim: Annotated[bool, typer.Option(help="The probe has glibc give its free memory back.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures into this file too.")] = None,
) -> None:
    plan, started = orders(prompts, seed), time.monotonic()
    found: dict[str, list[Memory]] = {name: [] for name in models.split(",")}
    for name, memories in found.items():
        for memory in _readings(name, plan, steps, every, explain or trim, trim):
            memories.append(memory)
            if json_file:
                write_text(json_file, json.dumps(_record(found), indent=2))
    print("\n".join(_document(found)), flush=True)
    print(f"\n{prompts} prompts each, of {steps} steps; {(time.monotonic() - started) / 60:.0f} minutes.")


def _readings(name: str, plan: list[Order], steps: int, every: int, explain: bool, trim: bool) -> Iterator[Memory]:
    """Memory after every so many prompts of the plan, in a server of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(releases.locate(), _base(Path(folder), name, with_probe=explain)) as server,
    ):
        for order in track(plan, name, console=Console(stderr=True)):
            server.client.run(GRAPHS[name](order, steps))
            if (order.number + 1) % every == 0:
                memory = _memory(server.pid, order.number + 1)
                yield replace(memory, probed=_probe(server, trim)) if explain else memory


def _base(root: Path, name: str, with_probe: bool) -> BaseDirectory:
    base = BaseDirectory(root).prepare()
    if with_probe:
        shutil.copytree(_PROBE, base.custom_nodes / _PROBE.name)
    shutil.copyfile(_PROBE.parents[1] / "pictures" / PICTURE, base.input / PICTURE)
    if name == "stock":
        (base.models / "checkpoints").mkdir()
        write_stock_model(base.models / "checkpoints" / STOCK)
    return base


def _memory(pid: int, prompts: int) -> Memory:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(prompts, sizes["Rss"], sizes["Anonymous"])


def _probe(server: Server, trim: bool) -> dict[str, int]:
    outputs = server.client.run({"probe": _node("MemoryProbe", number=time.time_ns() % 2**31, trim=trim)}).outputs
    return json.loads(outputs["probe"]["text"][0])


def _ours(order: Order, steps: int) -> dict[str, dict]:
    """Picture and sentence to a clip by the pack's nodes, or two sentences by a Video Chain."""
    size = {"width": order.width, "height": order.height, "frames": order.frames, "fit": "crop"}
    sampling = {
        "seed": order.seed, "steps": steps, "text_scale": 2.0, "image_scale": 1.5, "order": "text_first", "sampler": "ddim",
        "scheduler": "simple", "rescale": 0.0,
    }  # fmt: skip
    given = {"model": ["model", 0], "image": ["picture", 0], "vae": ["model", 2]}
    graph = {
        "model": _node("LoadDreamVideo", checkpoint="dreamvideo_sprites.safetensors (shipped)", weight_dtype="default"),
        "picture": _node("LoadImage", image=PICTURE),
    }
    if order.is_chain:
        chain = _node(
            "VideoChain", clip=["model", 1], prompts="\n".join(order.sentences), negative="", seeds="", seam="merge",
            colour_anchor="off", save_stages=False, folder="soak", **size, **sampling, **given,
        )  # fmt: skip
        return graph | {"chain": chain, "save": _node("PreviewImage", images=["chain", 0])}
    retention = {"image": given["image"], "vae": given["vae"], "batch_size": 1, "strength": 1.0, "start": 0.0, "end": 1.0}
    return graph | {
        "positive": _node("CLIPTextEncode", clip=["model", 1], text=order.sentences[0]),
        "negative": _node("CLIPTextEncode", clip=["model", 1], text=""),
        "retention": _node(
            "RetentionEncode", positive=["positive", 0], negative=["negative", 0], **size, **retention,
        ),
        "sampler": _node(
            "DualCFGSampler", model=["model", 0], positive=["retention", 0], negative=["retention", 1],
            latent=["retention", 2], denoise=1.0, **sampling,
        ),
        "frames": _node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "save": _node("PreviewImage", images=["frames", 0]),
    }  # fmt: skip


def _stock(order: Order, steps: int) -> dict[str, dict]:
    """The same by stock nodes: a batch in place of a clip; a chain is two batches, one from the last frame of the other."""
    graph = {
        "model": _node("CheckpointLoaderSimple", ckpt_name=STOCK),
        "loaded": _node("LoadImage", image=PICTURE),
        "picture": _node(
            "ImageScale", image=["loaded", 0], upscale_method="bilinear", width=order.width, height=order.height, crop="center"
        ),
        "negative": _node("CLIPTextEncode", clip=["model", 1], text=""),
    }
    stages, picture = order.sentences[: 1 + order.is_chain], "picture"
    for number, sentence in enumerate(stages):
        graph |= dict(_stock_stage(number, sentence, picture, order, steps))
        picture = f"last{number}"
    return graph | {"save": _node("PreviewImage", images=[f"frames{len(stages) - 1}", 0])}


def _stock_stage(number: int, sentence: str, picture: str, order: Order, steps: int) -> Iterator[tuple[str, dict]]:
    yield f"positive{number}", _node("CLIPTextEncode", clip=["model", 1], text=sentence)
    yield f"encoded{number}", _node("VAEEncode", pixels=[picture, 0], vae=["model", 2])
    yield f"latent{number}", _node("RepeatLatentBatch", samples=[f"encoded{number}", 0], amount=order.frames)
    yield f"sampler{number}", _node(
        "KSampler", model=["model", 0], positive=[f"positive{number}", 0], negative=["negative", 0],
        latent_image=[f"latent{number}", 0], seed=order.seed + number, steps=steps, cfg=1.0, sampler_name="ddim",
        scheduler="simple", denoise=1.0,
    )  # fmt: skip
    yield f"frames{number}", _node("VAEDecode", samples=[f"sampler{number}", 0], vae=["model", 2])
    yield f"last{number}", _node("ImageFromBatch", image=[f"frames{number}", 0], batch_index=order.frames - 1, length=1)


GRAPHS = {"ours": _ours, "stock": _stock}


def _node(class_type: str, **inputs: Any) -> dict:
    return {"class_type": class_type, "inputs": inputs}


def _document(found: dict[str, list[Memory]]) -> Iterator[str]:
    """A row for each reading, and the growth that counts."""
    head = ["prompts", *(f"{name}, {kind}" for name in found for kind in ("resident MiB", "anonymous MiB"))]
    readings = list(zip(*found.values(), strict=True))
    rows = [[str(row[0].prompts), *(cell for memory in row for cell in _cells(memory))] for row in readings]
    yield from table(head, rows)
    ends = {row[0].prompts: row for row in readings}
    if FIRST in ends and LAST in ends:
        grown = [
            Memory(0, last.resident - first.resident, last.anonymous - first.anonymous)
            for first, last in zip(ends[FIRST], ends[LAST], strict=True)
        ]
        yield from list(table([f"growth, {FIRST} to {LAST}", *(cell for memory in grown for cell in _cells(memory))], []))[:1]


def _cells(memory: Memory) -> tuple[str, str]:
    return f"{memory.resident / _MEBIBYTE:.0f}", f"{memory.anonymous / _MEBIBYTE:.0f}"


def _record(found: dict[str, list[Memory]]) -> dict:
    return {name: [asdict(memory) for memory in memories] for name, memories in found.items()}


if __name__ == "__main__":
    typer.run(main)
