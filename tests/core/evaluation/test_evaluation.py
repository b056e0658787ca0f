"""The small world's protocol: oracles whose score is known, and readings of clips whose truth is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binom
from typer.testing import CliRunner

from dreamvideo_core.cli import app
from dreamvideo_core.evaluation.chain import MEASURES
from dreamvideo_core.evaluation.metrics import confidence_interval, first_frame_ssim, ssim_map
from dreamvideo_core.evaluation.protocol import MODES, Protocol, measure
from dreamvideo_core.evaluation.reading import is_done, read_sprite
from dreamvideo_core.evaluation.report import as_table, summary, write_sheets
from dreamvideo_core.evaluation.sprites import Candidates, first_region, looks_alike, other_clip, swept_region
from dreamvideo_core.models import precision
from dreamvideo_core.sprites import COLOURS, Background, Clip, Scene, candidates, render, render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

CLIPS = [sample_clip(seeded("validation", 7, index)) for index in range(32)]
GREY = Background("plain", ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), CLIPS[0].scene.background.waves)
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


class Noisy(Oracle):
    """The truth with noise that the seed decides, as in a model."""

    def __call__(self, prompts, image, *, seed, **keywords) -> torch.Tensor:
        clips = super().__call__(prompts, image, seed=seed, **keywords)
        return clips + 0.1 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(seed))


def report(pipeline, **settings) -> dict:
    protocol = replace(PROTOCOL, **settings)
    return summary(measure(pipeline, protocol), protocol, "oracle")


@pytest.mark.parametrize("settings", [{}, {"height": 48, "width": 96, "num_frames": 5}])
def test_the_truth_scores_full_marks_in_every_mode(settings):
    figures = report(Oracle(), **settings)
    for mode in MODES:
        for name in ("fff_ssim", "fff_ssim_ceiling"):
            assert figures["modes"][mode][name] == pytest.approx(1, abs=1e-6)
    assert figures["modes"]["i2v"]["action_accuracy"] == figures["modes"]["ti2v"]["action_accuracy"] == 1
    both = figures["modes"]["ti2v"]
    for name in ("fff_ssim_sprite", "clip_ssim_sprite", "varied_text_accuracy", "named_sprite_accuracy", "motion"):
        assert both[name] == pytest.approx(1, abs=1e-6)
    assert both["background_drift"] == pytest.approx(0, abs=1e-6)
    assert all(figures["modes"]["t2v"][name] >= 0.9 for name in ("colour_found", "shape_found", "action_found"))
    assert figures["chance"] == pytest.approx(np.mean([1 / len(candidates(c.scene)) for c in scenes()]))
    assert figures["autoencoder_psnr"] == math.inf


def test_a_frozen_picture_is_found_out():
    figures = report(Frozen())
    both = figures["modes"]["ti2v"]
    assert all(both[name] == value for name, value in figures["frozen"].items())
    assert both["fff_ssim"] == pytest.approx(1, abs=1e-6)
    assert both["motion"] == 0
    assert both["action_accuracy"] == np.mean([c.action == "still" for c in scenes()])
    assert both["named_sprite_accuracy"] == 0


def test_moving_the_other_sprite_is_found_out():
    figures = report(WrongSprite())["modes"]["ti2v"]
    assert figures["named_sprite_accuracy"] == 0
    assert figures["action_accuracy"] == np.mean([c.action == "still" or len(c.scene.sprites) == 1 for c in scenes()])


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    few, many = (measure(Noisy(), replace(PROTOCOL, clips=count)) for count in (10, 12))
    assert few.modes["ti2v"]["clip_ssim_sprite"] == many.modes["ti2v"]["clip_ssim_sprite"][:10]


@pytest.mark.parametrize("modes", [("t2v",), ("ti2v", "i2v")])
def test_modes_that_were_not_asked_for_are_left_out(modes, tmp_path):
    protocol = replace(PROTOCOL, modes=modes)
    measured = measure(Oracle(), protocol)
    figures = summary(measured, protocol, "oracle")
    assert tuple(figures["modes"]) == modes
    assert len(as_table(figures).columns) == 1 + len(modes) + 2
    if "ti2v" in modes:
        assert len(write_sheets(measured, tmp_path)) == 3
    else:
        with pytest.raises(ValueError, match="ti2v was not measured"):
            write_sheets(measured, tmp_path)


@pytest.mark.parametrize(("name", "value"), [("modes", ("ti2v", "v2v")), ("num_frames", 1), ("clips", 0)])
def test_a_protocol_that_cannot_be(name, value):
    with pytest.raises(ValueError, match=name):
        replace(PROTOCOL, **{name: value})


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (64, 192)])
def test_sprites_are_read_out_of_true_clips(size):
    found = {c: read_sprite(render(c, height=size[0], width=size[1]), c.scene.sprites[c.actor].colour) for c in CLIPS}
    assert None not in found.values()
    assert np.mean([r.action == c.action for c, r in found.items()]) >= 0.95
    assert np.mean([r.shape == c.scene.sprites[c.actor].shape for c, r in found.items()]) >= 0.95


def test_a_clip_does_what_it_says_and_nothing_else():
    """Also where its sprites stand elsewhere, in other shapes, on another background."""
    for clip in CLIPS[:6]:
        moved = tuple(replace(s, shape="circle", x=s.x + 0.05) for s in clip.scene.sprites)
        frames = render(replace(clip, scene=Scene(GREY, moved)))
        assert is_done(clip, frames)
        assert not is_done(other_clip(clip, np.random.default_rng(0)), frames)


def test_a_colour_that_is_not_there_is_not_read():
    for clip in CLIPS:
        there = {s.colour for s in clip.scene.sprites}
        assert all(read_sprite(render(clip), colour) is None for colour in COLOURS if colour not in there)


def test_a_sprite_that_fades_where_it_is_has_not_left():
    sprite = replace(CLIPS[0].scene.sprites[0], x=0.5, y=0.5)
    frames = render(Clip(Scene(GREY, (sprite,)), 0, "still"), num_frames=16)
    frames[4:] = frames[0, :, 0, 0][:, None, None]
    assert read_sprite(frames, sprite.colour).action in ("still", "shrink")


def test_every_candidate_is_its_own_nearest():
    for clip in CLIPS[:6]:
        known = Candidates.of(clip.scene, 8, 64, 64)
        assert all(looks_alike(known.nearest(frames), c) for frames, c in zip(known.frames, known.clips, strict=True))


def test_another_sentence_is_another_clip_of_the_same_scene():
    for index, clip in enumerate(CLIPS):
        other = other_clip(clip, np.random.default_rng(index))
        assert other.scene == clip.scene and not looks_alike(other, clip) and sentence(other) != sentence(clip)


def test_regions_are_where_sprites_change_pixels():
    for clip in CLIPS[:8]:
        grey = replace(clip, scene=replace(clip.scene, background=GREY))
        frames = render(grey)
        shown = (frames - frames[0, :, 0, 0][:, None, None]).abs().amax(1) > 1e-4
        assert torch.equal(first_region(grey.scene, 64, 64), shown[0])
        alone = Clip(Scene(GREY, (grey.scene.sprites[grey.actor],)), 0, grey.action)
        swept = (render(alone) - frames[0, :, 0, 0][:, None, None]).abs().amax((0, 1)) > 1e-4
        assert torch.equal(swept_region(grey, 8, 64, 64), swept)


def test_ssim_of_flat_pictures_by_hand():
    """Without variance only luminance is left: (2 a b + c1) / (a^2 + b^2 + c1) with c1 = 0.01^2."""
    a, b = torch.full((2, 3, 24, 32), 0.2), torch.full((2, 3, 24, 32), -0.4)
    x, y = 0.6, 0.3
    expected = (2 * x * y + 1e-4) / (x * x + y * y + 1e-4)
    torch.testing.assert_close(first_frame_ssim(a, b), torch.full((2,), expected), rtol=1e-4, atol=1e-5)


def test_ssim_needs_equal_shapes():
    with pytest.raises(ValueError, match="must be equal"):
        ssim_map(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 24))


def test_the_interval_of_a_measure_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = confidence_interval(values.tolist())
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_interval_of_a_count_leaves_room_for_error():
    low, high = confidence_interval([1.0] * 24)
    assert high == 1 and binom.pmf(24, 24, low) < 0.06  # all right by luck is unlikely at the lower end
    assert confidence_interval([0.7]) == (0.7, 0.7)


def test_evaluate_writes_figures_and_sheets(tmp_path):
    arguments = [
        "evaluate",
        "--clips",
        "2",
        "--steps",
        "2",
        "--width",
        "64",
        "--height",
        "64",
        "--json",
        str(tmp_path / "figures.json"),
    ]
    result = CliRunner().invoke(app, [*arguments, "--sheets", str(tmp_path / "sheets")])
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["modes"]) == {"t2v", "i2v", "ti2v"}
    assert {p.name for p in (tmp_path / "sheets").iterdir()} == {"best.png", "median.png", "worst.png"}
    assert all(name in result.output for name in ("clip_ssim_sprite", "action_accuracy", "action_found"))


def test_evaluate_says_which_precision_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: True)
    line = ["evaluate", "--clips", "1", "--steps", "1", "--width", "64", "--height", "64", "--device", "cpu"]
    for large, dtype in ((precision.LARGE, "fp32"), (0, "bf16")):
        monkeypatch.setattr(precision, "LARGE", large)
        assert CliRunner().invoke(app, [*line, "--json", str(tmp_path / "figures.json")]).exit_code == 0
        assert json.loads((tmp_path / "figures.json").read_text())["dtype"] == dtype


def test_evaluate_measures_chains(tmp_path):
    arguments = ["evaluate", "--chain", "2", "--clips", "1", "--steps", "1", "--width", "64", "--height", "64", "--anchor"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "figures.json")])
    assert result.exit_code == 0, result.output
    stages = json.loads((tmp_path / "figures.json").read_text())["stages"]
    assert [set(row) for row in stages] == [set(MEASURES)] * 2
    assert "colours anchored" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--chain", "0", "stages is 0; allowed: 1 to 64"),
        ("--anchor", "--seed=0", "--anchor belongs to chains"),
        ("--world", "moon", "--world is 'moon'; allowed: sprites"),
        ("--clips", "0", "--clips is 0"),
        ("--frames", "1", "--frames is 1"),
        ("--steps", "0", "--steps is 0"),
        ("--width", "60", "--width is 60"),
    ],
)
def test_evaluate_names_a_wrong_option(option, value, complaint):
    result = CliRunner().invoke(app, ["evaluate", option, value])
    assert result.exit_code == 1
    assert complaint in result.output
