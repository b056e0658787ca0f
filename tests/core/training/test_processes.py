"""Training by two processes over gloo, as `torchrun` starts them: killed, and resumed to the same bits."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from clip_files import write_clips
from tiny import random_pipeline

REPOSITORY = Path(__file__).parents[3]
RECIPE = """
name = "pair"
preset = "sprites"
[[phases]]
name = "image"
objective = "diffusion"
trainable = ["temporal", "retention"]
epochs = 2
windows = 2
batch_size = 1
learning_rate = 1e-2
warmup_steps = 1
stride = 2
num_frames = 2
sizes = [[16, 16]]
drop_text = 0.1
drop_image = 0.1
gradient_accumulation = 2
sample_every = 1000
log_every = 1
checkpoint_minutes = 1e-9
"""
STEPS = 6  # 2 epochs of 2 windows of 6 clips, 2 processes with 2 batches of 1 each


def start_pair(folder: Path, output: str, *options: str) -> list[subprocess.Popen]:
    """Both processes of one run, which find each other by these variables."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "dreamvideo_core.cli", "train", folder / "pair.toml", "--data", folder / "clips"]
    line += ["--start", folder / "start.safetensors", "--output", folder / output, *options]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [str(word) for word in line],
            cwd=REPOSITORY,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def finish(pair: list[subprocess.Popen]) -> str:
    said = [process.communicate(timeout=600)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(said)
    return said[0]


def test_two_processes_killed_and_resumed_end_with_the_same_bits(tmp_path):
    write_clips(tmp_path / "clips", count=6, frames=5)
    random_pipeline().save(tmp_path / "start.safetensors")
    (tmp_path / "pair.toml").write_text(RECIPE)
    assert f"{STEPS} steps" in finish(start_pair(tmp_path, "whole"))

    pair = start_pair(tmp_path, "parts")
    while not list((tmp_path / "parts").glob("image/state-*")) and pair[0].poll() is None:
        time.sleep(0.01)
    for process in pair:
        process.kill()
        process.communicate()
    said = finish(start_pair(tmp_path, "parts", "--resume"))
    assert "resumed at step" in said
    results = [(tmp_path / name / "0-image.safetensors").read_bytes() for name in ("whole", "parts")]
    assert results[0] == results[1]
