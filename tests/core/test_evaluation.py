"""The small world's protocol: oracles whose score is known, and readings of clips whose truth is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from dreamvideo_core.cli import app
from dreamvideo_core.evaluation.metrics import bootstrap_interval, first_frame_ssim, psnr, ssim_map
from dreamvideo_core.evaluation.protocol import MODES, Protocol, measure
from dreamvideo_core.evaluation.reading import read_sprite
from dreamvideo_core.evaluation.report import summary
from dreamvideo_core.evaluation.sprites import Candidates, candidates, first_region, other_clip, same, swept_region
from dreamvideo_core.sprites import Clip, Scene, render, render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

CLIPS = [sample_clip(seeded("validation", 7, index)) for index in range(32)]
PROTOCOL = Protocol(clips=12, seed=5, height=64, width=64, num_frames=8, steps=1, text_scale=1.0, image_scale=1.0, batch_size=5)


def scenes() -> list[Clip]:
    return [sample_clip(seeded("test", PROTOCOL.seed, index)) for index in range(PROTOCOL.clips)]


class Oracle:
    """Stands where a model's pipeline does and knows the truth: renders what the sentence names."""

    device = torch.device("cpu")

    def clips(self, prompts: list[str], seed: int) -> list[Clip]:
        true = [sample_clip(seeded("test", PROTOCOL.seed, seed - PROTOCOL.seed + i)) for i in range(len(prompts))]
        return [
            next(c for c in [t, *candidates(t.scene)] if sentence(c) == prompt) if prompt else t
            for prompt, t in zip(prompts, true, strict=True)
        ]

    def __call__(self, prompts, image, *, num_frames, height, width, seed, **_) -> torch.Tensor:
        return render_batch(self.clips(prompts, seed), num_frames=num_frames, height=height, width=width)

    def encode(self, frames):
        return frames

    def decode(self, latents):
        return latents


class Frozen(Oracle):
    """Shows the picture and nothing else, what the paper says of its peers."""

    def __call__(self, prompts, image, **keywords) -> torch.Tensor:
        clip = super().__call__(prompts, image, **keywords)
        return clip[:, :1].expand_as(clip)


class WrongSprite(Oracle):
    """Does what is asked with the other sprite, where there is one."""

    def clips(self, prompts: list[str], seed: int) -> list[Clip]:
        return [Clip(c.scene, len(c.scene.sprites) - 1 - c.actor, c.action) for c in super().clips(prompts, seed)]


def report(pipeline) -> dict:
    return summary(measure(pipeline, PROTOCOL), PROTOCOL, "oracle")


def test_the_truth_scores_full_marks_in_every_mode():
    figures = report(Oracle())
    for mode in MODES:
        values = figures["modes"][mode]
        for name in ("fff_ssim", "action_accuracy", "fff_ssim_ceiling"):
            assert values[name] == pytest.approx(1, abs=1e-6)
    both = figures["modes"]["ti2v"]
    for name in ("fff_ssim_sprite", "clip_ssim_sprite", "varied_text_accuracy", "named_sprite_accuracy", "motion"):
        assert both[name] == pytest.approx(1, abs=1e-6)
    assert both["background_drift"] == pytest.approx(0, abs=1e-6)
    assert figures["modes"]["t2v"]["colour_accuracy"] == figures["modes"]["t2v"]["shape_accuracy"] == 1
    assert figures["chance"] == pytest.approx(np.mean([1 / len(candidates(c.scene)) for c in scenes()]))
    assert figures["autoencoder_psnr"] == math.inf


def test_a_frozen_picture_is_found_out():
    both = report(Frozen())["modes"]["ti2v"]
    assert both["fff_ssim"] == pytest.approx(1, abs=1e-6)
    assert both["motion"] == 0
    assert both["action_accuracy"] == np.mean([c.action == "still" for c in scenes()])
    assert both["named_sprite_accuracy"] == 0


def test_moving_the_other_sprite_is_found_out():
    figures = report(WrongSprite())["modes"]["ti2v"]
    assert figures["named_sprite_accuracy"] == 0
    assert figures["action_accuracy"] == np.mean([c.action == "still" or len(c.scene.sprites) == 1 for c in scenes()])


def test_results_do_not_depend_on_how_far_the_run_goes():
    few = measure(Oracle(), Protocol(**{**vars(PROTOCOL), "clips": 5}))
    many = measure(Oracle(), PROTOCOL)
    assert few.modes["ti2v"]["clip_ssim_sprite"] == many.modes["ti2v"]["clip_ssim_sprite"][:5]
    assert few.clips == many.clips[:5]


@pytest.mark.parametrize("size", [(64, 64), (96, 128)])
def test_sprites_are_read_out_of_true_clips(size):
    found = {c: read_sprite(render(c, height=size[0], width=size[1]), c.scene.sprites[c.actor].colour) for c in CLIPS}
    assert None not in found.values()
    assert np.mean([r.action == c.action for c, r in found.items()]) >= 0.95
    assert np.mean([r.shape == c.scene.sprites[c.actor].shape for c, r in found.items()]) >= 0.95


def test_a_colour_that_is_not_there_is_not_read():
    for clip in CLIPS:
        there = {s.colour for s in clip.scene.sprites}
        assert read_sprite(render(clip), next(c for c in ("red", "green", "blue") if c not in there)) is None


def test_every_candidate_is_its_own_nearest():
    for clip in CLIPS[:6]:
        known = Candidates.of(clip.scene, 8, 64, 64)
        assert all(same(known.nearest(frames), c) for frames, c in zip(known.frames, known.clips, strict=True))


def test_another_sentence_is_another_clip_of_the_same_scene():
    for index, clip in enumerate(CLIPS):
        other = other_clip(clip, np.random.default_rng(index))
        assert other.scene == clip.scene and not same(other, clip) and sentence(other) != sentence(clip)


def test_regions_hold_every_pixel_that_sprites_change():
    for clip in CLIPS[:8]:
        frames = render(clip)
        moved = (frames - frames[:1]).abs().amax((0, 1)) > 1e-4
        assert not (moved & ~swept_region(clip, 8, 64, 64)).any()
        empty = render(Clip(Scene(clip.scene.background, (clip.scene.sprites[clip.actor],)), 0, "still"))[0]
        others = (empty - frames[0]).abs().amax(0) > 1e-4
        assert not (others & ~first_region(clip, 64, 64)).any()


def test_ssim_of_the_whole_is_the_mean_of_its_map():
    first, second = torch.rand(2, 3, 24, 32) * 2 - 1, torch.rand(2, 3, 24, 32) * 2 - 1
    torch.testing.assert_close(first_frame_ssim(first, second), ssim_map(first, second).mean((1, 2)))


def test_psnr_by_hand():
    picture = torch.zeros(2, 3, 8, 8)
    torch.testing.assert_close(psnr(picture, picture + 0.2), torch.full((2,), 20.0))  # a tenth of the range


def test_the_bootstrap_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_evaluate_writes_figures_and_sheets(tmp_path):
    arguments = ["evaluate", "--clips", "2", "--steps", "2", "--json", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(app, [*arguments, "--sheets", str(tmp_path / "sheets")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["modes"]) == {"t2v", "i2v", "ti2v"}
    assert {p.name for p in (tmp_path / "sheets").iterdir()} == {"best.png", "median.png", "worst.png"}
    assert "clip_ssim_sprite" in result.output


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--world", "moon", "--world is 'moon'; allowed: sprites"),
        ("--clips", "0", "--clips is 0"),
        ("--steps", "0", "--steps is 0"),
        ("--width", "60", "--width is 60"),
    ],
)
def test_evaluate_names_a_wrong_option(option, value, complaint):
    result = CliRunner().invoke(app, ["evaluate", option, value])
    assert result.exit_code == 1
    assert complaint in result.output
