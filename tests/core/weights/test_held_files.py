"""Files that are mapped while they are replaced or deleted, which Windows refuses."""

import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from held_files import hold_files
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import config, random_pipeline

from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.training.objectives import Objective, Samples
from dreamvideo_core.training.recipe import Phase
from dreamvideo_core.training.state import TrainingState, save_state
from dreamvideo_core.training.trainer import Trainer
from dreamvideo_core.weights.convert import convert, init_retention
from dreamvideo_core.weights.sources import open_model


class Line(Objective):
    """Learns a line; so small that its states are whole pages of nothing else."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1 << 12))

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(1 << 12)}

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * batch["x"]).square().mean()}

    def samples(self) -> Samples:
        return Samples(Image.new("RGB", (8, 8)))


def trainer(folder: Path) -> Trainer:
    phase = Phase("line", "autoencoder", steps=4, batch_size=1, learning_rate=1e-3, sample_every=100)
    return Trainer(Line(), phase, folder, Accelerator(cpu=True), seed=0)


@pytest.fixture(autouse=True)
def held(monkeypatch):
    hold_files(monkeypatch)


@pytest.mark.skipif(sys.platform == "darwin", reason="holds nothing there: macOS has no table of mapped files to read")
def test_held_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(1 << 16)}, path)
    read = load_file(path)
    with pytest.raises(PermissionError):
        path.unlink()
    with pytest.raises(PermissionError):
        os.replace(tmp_path / "b", path)
    del read
    path.unlink()


def start_branch(path: Path) -> None:
    random_pipeline(config(retention=False)).save(path)
    init_retention(path, path)


WRITERS = {
    "converted": lambda path: convert(path, path),
    "to another precision": lambda path: convert(path, path, torch.bfloat16),
    "with a branch": start_branch,
    "loaded and saved": lambda path: Pipeline.load(path).save(path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_model_takes_its_own_place(tmp_path, write):
    path = tmp_path / "m.safetensors"
    random_pipeline().save(path)
    write(path)
    assert open_model(path).parts.keys() == {"unet", "retention", "text_encoder", "vae"}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_file_that_is_converted_onto_itself_is_what_it_would_be_elsewhere(tmp_path):
    path, elsewhere = tmp_path / "m.safetensors", tmp_path / "elsewhere.safetensors"
    random_pipeline().save(path)
    for target in (elsewhere, path):
        convert(path, target, torch.float16)
    assert path.read_bytes() == elsewhere.read_bytes()


def test_a_resumed_run_drops_the_state_that_it_began_with(tmp_path):
    assert not trainer(tmp_path).fit(minutes=0)
    resumed = trainer(tmp_path)
    assert resumed.resume() and resumed.step == 1
    while not resumed.fit(minutes=0):
        pass
    assert [path.name for path in sorted(tmp_path.glob("state-*"))] == [
        "state-0000003.safetensors",
        "state-0000004.safetensors",
    ]


def test_an_old_state_that_another_program_holds_stays_for_the_next_time(tmp_path):
    def save(step: int) -> list[str]:
        save_state(tmp_path, TrainingState(step, {"a": torch.ones(2)}, {}, {}))
        return sorted(path.name for path in tmp_path.iterdir())

    for step in (1, 2):
        save(step)
    with (tmp_path / "state-0000001.safetensors").open("rb"):
        assert len(save(3)) == 3
    assert save(4) == ["state-0000003.safetensors", "state-0000004.safetensors"]
