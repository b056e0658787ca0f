"""Two processes over gloo, as `accelerate launch` starts them, make one folder of clips; one of them measures it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tiny import random_pipeline

REPOSITORY = Path(__file__).parents[3]


def test_two_processes_share_the_clips(tmp_path):
    random_pipeline().save(tmp_path / "tiny.safetensors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [
        sys.executable,
        "-m",
        "dreamvideo_core.cli",
        "evaluate",
        "--metrics",
        "fff_ssim",
        "--clips",
        "3",
        "--modes",
        "t2v,ti2v",
    ]
    line += ["--model", tmp_path / "tiny.safetensors", "--output", tmp_path / "made", "--json", tmp_path / "figures.json"]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    pair = [
        subprocess.Popen(
            [*map(str, line), "--steps", "1", "--device", "cpu"],
            cwd=REPOSITORY,
            env={**os.environ, **shared, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=900)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(said)
    assert "clips of" in said[0] and "clips of" not in said[1]
    assert [row["label"] for row in json.loads((tmp_path / "figures.json").read_text())["rows"]] == ["t2v", "ti2v", "reference"]
    assert len(list((tmp_path / "made").glob("t*v/scene*"))) == 6
