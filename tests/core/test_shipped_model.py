"""The model that ships: small enough, whole, and good on scenes nobody trained on.

The bars for similarities are those of 100 clips; what counts successes leaves room for one miss among 24.
"""

from __future__ import annotations

from dataclasses import asdict

import pytest

from dreamvideo_core.evaluation.protocol import Protocol, measure
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.model import is_untrained
from dreamvideo_core.pipeline import SHIPPED, Pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load()


@pytest.fixture(scope="module")
def report(pipeline: Pipeline) -> dict:
    protocol = Protocol(clips=24, seed=0, batch_size=8, **asdict(pipeline.config.sampling))
    return summary(measure(pipeline, protocol), protocol, SHIPPED.name)


@pytest.fixture(scope="module")
def figures(report: dict) -> dict:
    return report["modes"]


def test_all_weights_together_stay_small():
    assert sum(file.stat().st_size for file in SHIPPED.parent.glob("*.safetensors")) <= 32 * 2**20


def test_every_part_is_there_and_trained(pipeline: Pipeline):
    assert pipeline.model.retention is not None
    assert not is_untrained(pipeline.model.retention.state_dict())


def test_the_autoencoder_keeps_the_picture(report: dict):
    assert report["autoencoder_psnr"] > 34


def test_the_first_frame_is_the_picture(figures: dict):
    both = figures["ti2v"]
    assert both["fff_ssim"] > 0.97 * both["fff_ssim_ceiling"]
    assert both["fff_ssim_sprite"] > 0.9 * both["fff_ssim_sprite_ceiling"]


def test_the_sentence_decides_what_moves(figures: dict):
    both = figures["ti2v"]
    assert both["action_accuracy"] > 0.95
    assert both["varied_text_accuracy"] > 0.9
    assert both["named_sprite_accuracy"] > 0.9
    assert 0.9 < both["motion"] < 1.1


def test_shapes_last_to_the_last_frame(figures: dict):
    assert figures["ti2v"]["clip_ssim_sprite"] > 0.8 * figures["ti2v"]["clip_ssim_sprite_ceiling"]


def test_both_conditions_beat_either(figures: dict):
    """The paper's Fig. 6 in small."""
    assert figures["ti2v"]["action_accuracy"] > figures["i2v"]["action_accuracy"]
    assert figures["ti2v"]["fff_ssim"] > figures["t2v"]["fff_ssim"]
