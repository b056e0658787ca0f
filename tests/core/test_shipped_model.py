"""The model that ships: small enough, whole, and it does what it can so far, on scenes nobody trained on."""

from __future__ import annotations

import pytest
import torch

from dreamvideo_core.evaluation.metrics import first_frame_ssim
from dreamvideo_core.evaluation.sprites import action_accuracy
from dreamvideo_core.pipeline import SHIPPED, Pipeline
from dreamvideo_core.sprites import Clip, render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

CLIPS = 16


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load()


@pytest.fixture(scope="module")
def scenes() -> list[Clip]:
    return [sample_clip(seeded("test", 0, index)) for index in range(CLIPS)]


@pytest.fixture(scope="module")
def true(scenes: list[Clip]) -> torch.Tensor:
    return render_batch(scenes)


@pytest.fixture(scope="module")
def made(pipeline: Pipeline, scenes: list[Clip], true: torch.Tensor) -> torch.Tensor:
    return pipeline([sentence(clip) for clip in scenes], true[:, 0])


def test_all_weights_together_stay_small():
    assert sum(file.stat().st_size for file in SHIPPED.parent.glob("*.safetensors")) <= 32 * 2**20


def test_every_part_is_there_and_trained(pipeline: Pipeline):
    assert pipeline.model.retention is not None
    assert not pipeline.model.retention.is_untrained()


def test_the_first_frame_is_the_picture(pipeline: Pipeline, true: torch.Tensor, made: torch.Tensor):
    ceiling = pipeline.decode(pipeline.encode(true[:, :1]))[:, 0]
    share = first_frame_ssim(made[:, 0], true[:, 0]).mean() / first_frame_ssim(ceiling.detach(), true[:, 0]).mean()
    assert share > 0.65


def test_true_clips_are_told_apart(scenes: list[Clip], true: torch.Tensor):
    assert action_accuracy(true, scenes) == 1.0
