"""Chains whose disk is full or read-only, in a real server on real small disks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chains import ONE, THREE, TWO, chain, remarks, sampled
from comfy_host.errors import ExecutionFailed
from comfy_host.server import Server
from graphs import node

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk needs root")


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


def long_chain(**options) -> dict:
    """Three stages; its frames are shown and not saved."""
    graph = chain(ONE, TWO, THREE, **options)
    del graph["hand_overs"]
    graph["frames"] = node("PreviewImage", images=["chain", 0])
    return graph


def test_a_full_temporary_folder_stops_no_chain(server: Server):
    with small_disk(server.workspace / "temp" / "dreamvideo_chain", 16):
        execution = server.client.run(chain(ONE, TWO, seed=8000))
    assert sampled(execution) == [1, 2]
    assert [line.partition(":")[0] for line in remarks(execution)] == [
        f"stage {n} is not kept for the next run" for n in (1, 2)
    ]
    assert all("is full (No space left on device)" in line for line in remarks(execution))


def test_a_read_only_temporary_folder_stops_no_chain(server: Server):
    folder = server.workspace / "temp" / "dreamvideo_chain"
    with small_disk(folder, 1000):
        remount(folder, "ro")
        execution = server.client.run(chain(ONE, TWO, seed=8100))
    assert sampled(execution) == [1, 2]
    assert len(remarks(execution)) == 2 and all("cannot be written to" in line for line in remarks(execution))


def test_a_chain_goes_on_when_its_full_disk_has_room_again(server: Server):
    folder = server.output / "small"
    graph = long_chain(save_stages=True, folder="small/chain", seed=8200)
    with small_disk(folder, 128):  # two stages and a half
        with pytest.raises(
            ExecutionFailed, match=r"small/chain' is full .*: stage 3 could not be kept\. 2 stages are kept"
        ) as error:
            server.client.run(graph)
        assert "the same chain goes on from there" in str(error.value)
        names = sorted(path.suffix for path in (folder / "chain").iterdir() if path.name != ".lock")
        assert names == [".json", ".png", ".png", ".safetensors", ".safetensors"]
        remount(folder, "size=2000k")
        server.client.post("/free", {"unload_models": False, "free_memory": True})  # results that ComfyUI itself keeps
        assert sampled(server.client.run(graph)) == [3]
        assert len(list((folder / "chain").glob("stage_*.safetensors"))) == 3


def test_a_read_only_output_folder_is_said_before_the_first_stage(server: Server):
    folder = server.output / "locked"
    with small_disk(folder, 1000):
        remount(folder, "ro")
        with pytest.raises(ExecutionFailed, match=r"'.*locked/chain' cannot be written to") as error:
            server.client.run(long_chain(save_stages=True, folder="locked/chain", seed=8300))
    assert error.value.node_id == "chain" and "another name" not in str(error.value)
