"""Training by two processes over gloo, as `torchrun` starts them: killed, and resumed to the same bits."""

import time

from clip_files import write_clips
from ranks import start_ranks
from tiny import random_pipeline

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


def test_two_processes_killed_and_resumed_end_with_the_same_bits(tmp_path):
    write_clips(tmp_path / "clips", count=6, frames=5)
    random_pipeline().save(tmp_path / "start.safetensors")
    (tmp_path / "pair.toml").write_text(RECIPE)
    line = ["train", tmp_path / "pair.toml", "--data", tmp_path / "clips", "--start", tmp_path / "start.safetensors"]
    said = [rank.finish() for rank in start_ranks(tmp_path, *line, "--output", tmp_path / "whole")]
    assert f"{STEPS} steps" in said[0]

    ranks = start_ranks(tmp_path, *line, "--output", tmp_path / "parts")
    while not list((tmp_path / "parts").glob("image/state-*")) and ranks[0].process.is_alive():
        time.sleep(0.01)
    for rank in ranks:
        rank.kill()
    said = [rank.finish() for rank in start_ranks(tmp_path, *line, "--output", tmp_path / "parts", "--resume")]
    assert "resumed at step" in said[0]
    results = [(tmp_path / name / "0-image.safetensors").read_bytes() for name in ("whole", "parts")]
    assert results[0] == results[1]
