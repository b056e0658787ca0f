"""Two processes over gloo, as `accelerate launch` starts them, make one folder of clips; one of them measures it."""

import json

from ranks import start_ranks
from tiny import random_pipeline


def test_two_processes_share_the_clips(tmp_path):
    random_pipeline().save(tmp_path / "tiny.safetensors")
    line = ["evaluate", "--metrics", "fff_ssim", "--clips", 3, "--modes", "t2v,ti2v", "--steps", 1, "--device", "cpu"]
    line += ["--model", tmp_path / "tiny.safetensors", "--output", tmp_path / "made", "--json", tmp_path / "figures.json"]
    said = [rank.finish() for rank in start_ranks(tmp_path, *line)]
    assert "clips of" in said[0] and "clips of" not in said[1]
    assert [row["label"] for row in json.loads((tmp_path / "figures.json").read_text())["rows"]] == ["t2v", "ti2v", "reference"]
    assert len(list((tmp_path / "made").glob("t*v/scene*"))) == 6
