"""A public model at its true size in a real server, with random weights. Minutes and 20 GB of disk: run with -m slow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.server import Server
from diffusers_folder import write_full_size
from graphs import image_to_video, node
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

PICTURE = "dreamvideo_two_sprites.png"
GIB = 2**30
# The largest tensor, in half precision: the table of the text encoder's words.
LARGEST = 49408 * 1024 * 2


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseDirectory:
    base = BaseDirectory(tmp_path_factory.mktemp("full_size")).prepare()
    write_full_size(base.models / "dreamvideo" / "public")
    return base


@pytest.fixture(scope="module")
def started(base: BaseDirectory) -> int:
    """Begin a branch on the command line; its peak memory in bytes."""
    models = base.models / "dreamvideo"
    code = (
        "from dreamvideo_core.cli import app; "
        f"app(['init-retention', {str(models / 'public')!r}, {str(models / 'start.safetensors')!r}], standalone_mode=False); "
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM:')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(run.stdout.split()[-2]) * 1024


@pytest.fixture
def server(base: BaseDirectory) -> Iterator[Server]:
    """A server of each test's own: a peak counts from its start."""
    with Server(releases.locate(), base) as running:
        yield running


def graph(checkpoint: str, weight_dtype: str, picture: str | None) -> dict:
    made = image_to_video(picture, width=256, height=256, frames=8)
    made["model"]["inputs"] |= {"checkpoint": checkpoint, "weight_dtype": weight_dtype}
    made["sampler"]["inputs"] |= {"text_scale": 9.0, "image_scale": 5.0}
    made["keep"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="kept")
    return made


def test_a_branch_begins_in_little_memory(started: int):
    print(f"init-retention: {started / GIB:.2f} GiB at the peak")
    assert started < GIB + LARGEST


@pytest.mark.parametrize(
    ("checkpoint", "picture", "weight_dtype"),
    [("public", None, "bf16"), ("start.safetensors", PICTURE, "bf16"), ("start.safetensors", PICTURE, "fp8_e4m3fn")],
)
@pytest.mark.usefixtures("started")
def test_two_steps_at_the_paper_s_size(server: Server, checkpoint: str, picture: str | None, weight_dtype: str):
    saved = list(server.client.run(graph(checkpoint, weight_dtype, picture)).saved())
    latents = next(item for item in saved if item["filename"].endswith(".latent"))
    assert load_file(server.output / latents["subfolder"] / latents["filename"])["latent_tensor"].isfinite().all()
    assert len(saved) == 8 + 1
    print(f"{checkpoint}, {weight_dtype}: {server.peak_memory / GIB:.1f} GiB at the peak")
    assert server.peak_memory < 16 * GIB
