"""A server whose model folders hold odd things, and which keeps no outputs: the pack loads, and a model is loaded once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.paths import REPOSITORY
from comfy_host.server import Server
from diffusers_folder import write_folder
from graphs import FRAMES, SHIPPED, SIZE, STEPS, node

PROBE = Path(__file__).parent / "probe"
MODEL = REPOSITORY / "dreamvideo_core" / "assets" / "dreamvideo_sprites.safetensors"

# What stands in a hub cache's refs/main, by the cache's name.
REFERENCES = {
    "not-utf-8": b"\xff\xfe\x00\x80",
    "long": b"a" * 5000,
    "absolute": b"/elsewhere",
    "above": b"../../good",
    "nul": b"a\0b",
    "empty": b"",
}


def hub_cache(folder: Path, reference: bytes) -> None:
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_bytes(reference)
    (folder / "snapshots" / "aaa" / "unet").mkdir(parents=True)
    (folder / "snapshots" / "aaa" / "unet" / "config.json").write_text("{}")


def put_odd_things(models: Path) -> None:
    """Beside a good model, in both of the folders that the pack lists."""
    for kind in ("dreamvideo", "diffusers"):
        for name, reference in REFERENCES.items():
            hub_cache(models / kind / name, reference)
        hub_cache(models / kind / "folder", b"")
        (models / kind / "folder" / "refs" / "main").unlink()
        (models / kind / "folder" / "refs" / "main").mkdir()
        (models / kind / "itself").symlink_to("itself")
        (models / kind / "nowhere").symlink_to("gone")
        (models / kind / "circle").symlink_to(".")
        (models / kind / "ends.safetensors").symlink_to("ends.safetensors")
        os.mkdir(os.fsencode(models / kind) + b"/\xff\xfe")


@pytest.fixture(scope="module", params=[None, "0.16.3"], ids=["newest", "oldest"])
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base = BaseDirectory(tmp_path_factory.mktemp("odd")).prepare()
    shutil.copytree(PROBE, base.custom_nodes / PROBE.name)
    put_odd_things(base.models)
    write_folder(base.models / "diffusers" / "good")
    shutil.copyfile(MODEL, base.models / "dreamvideo" / "own.safetensors")
    comfyui = releases.locate(request.param) if request.param else releases.locate()
    with Server(comfyui, base, arguments=("--cache-none",)) as running:
        yield running


def test_odd_neighbours_are_left_out(odd: Server):
    info = odd.client.object_info()["LoadDreamVideo"]["input"]
    choices = info["required"]["checkpoint"]
    names = choices[1]["options"] if choices[0] == "COMBO" else choices[0]
    assert names == [SHIPPED, "own.safetensors", "good"]


def test_every_one_is_named_once_in_the_log(odd: Server):
    for _ in range(2):
        odd.client.object_info()
    said = [
        line for line in odd.log_path.read_text(errors="replace").splitlines() if "is left out of the list of models" in line
    ]
    for kind in ("dreamvideo", "diffusers"):
        for name in (*REFERENCES, "folder"):
            about = [line for line in said if f"{kind}/{name}' is left out" in line]
            assert len(about) == 1 and ("refs/main" in about[0] or "cannot be read" in about[0]), (name, about)


def chain(name: str, cfg: float | None = None) -> dict:
    """A chain of two stages whose frames are saved as `name`, on a model that `RescaleCFG` changes where `cfg` is given."""
    inputs = {
        "prompts": "the red circle moves left\nthe red circle moves up", "negative": "", "width": SIZE, "height": SIZE,
        "fit": "crop", "frames": FRAMES, "seed": 3, "seeds": "", "steps": STEPS, "text_scale": 2.0, "image_scale": 1.5,
        "order": "text_first", "sampler": "ddim", "scheduler": "simple", "rescale": 0.0, "seam": "keep",
        "colour_anchor": "off", "save_stages": False, "folder": "chain",
    }  # fmt: skip
    graph = {
        "picture": node("LoadImage", image="dreamvideo_two_sprites.png"),
        "model": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "chain": node("VideoChain", model=["model", 0], clip=["model", 1], vae=["model", 2], image=["picture", 0], **inputs),
        "frames": node("SaveFrames", frames=["chain", 0], name=name),
    }
    if cfg is not None:
        graph["changed"] = node("RescaleCFG", model=["model", 0], multiplier=cfg)
        graph["chain"]["inputs"]["model"] = ["changed", 0]
    links = {k: {i: [f"{name}_{v[0]}", v[1]] for i, v in e["inputs"].items() if isinstance(v, list)} for k, e in graph.items()}
    return {f"{name}_{k}": {**entry, "inputs": entry["inputs"] | links[k]} for k, entry in graph.items()}


def loads(server: Server) -> int:
    """How many models the process has made; ComfyUI says so of each."""
    return server.log_path.read_text(errors="replace").count("model weight dtype")


def test_a_chain_loads_its_model_once(odd: Server):
    before = loads(odd)
    odd.client.run(chain("first"))
    assert loads(odd) - before == 1
    odd.client.run({"count": node("CountModels", name="alive")})
    assert (odd.output / "alive.txt").read_text() == "0"


def test_two_loaders_of_one_file_share_its_weights_alone(odd: Server):
    """A patch on one model does not reach the other."""
    odd.client.run(chain("alone"))
    odd.client.run(chain("plain") | chain("changed", cfg=1.0))
    alone, plain, changed = ((odd.output / f"{name}.safetensors").read_bytes() for name in ("alone", "plain", "changed"))
    assert plain == alone
    assert changed != alone
