"""Training on what the model itself hands over: from stage to stage, made once, in place of a share of first frames."""

from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from tiny import random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.images import from_uint8, to_uint8
from dreamvideo_core.sampling.pipeline import SHIPPED
from dreamvideo_core.sprites import render, sentence
from dreamvideo_core.training.data.sprites import SpriteSource
from dreamvideo_core.training.hand_overs import cached_hand_overs
from dreamvideo_core.training.latents import LatentClips
from dreamvideo_core.training.objectives import DiffusionObjective
from dreamvideo_core.training.recipe import Phase, Recipe
from dreamvideo_core.training.run import run_recipe

SHAPE = {"num_frames": 3, "height": 16, "width": 24}


def chained(stages: int = 3, **settings) -> Phase:
    common = {"batch_size": 2, "learning_rate": 1e-3, "num_frames": 3, "clips": 130, "sizes": ((16, 24),)}
    common |= {"trainable": ("unet", "retention"), "chain_stages": stages}
    return Phase("chained", "diffusion", 1, **common | settings)


class Fading:
    """Stands in for a pipeline: its clips stand still and lose a tenth of what is over black with each frame."""

    def __init__(self):
        self.asked: list[tuple[str, torch.Tensor]] = []

    def __call__(self, prompts, images, *, seed, num_frames):
        self.asked += zip(prompts, images, strict=True)
        return torch.stack([(images + 1) * 0.9**frame - 1 for frame in range(num_frames)], 1)


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_every_stage_begins_with_what_the_one_before_was_made_to_end_with(tmp_path, stages):
    source, model = SpriteSource(chained(stages), (16, 24), 0), Fading()
    images = cached_hand_overs(tmp_path, source, model, "fading")
    for row in range(len(source)):
        first = render(source.clip(row - row % stages), **SHAPE)[0]
        faded = (first + 1) * 0.9 ** (2 * (row % stages)) - 1
        torch.testing.assert_close(images[[row]][0].int(), to_uint8(faded).int(), rtol=0, atol=1)
        if (row + 1) % stages and row + 1 < len(source):
            told = [picture for prompt, picture in model.asked if prompt == sentence(source.clip(row))]
            assert any(torch.equal(to_uint8(picture), images[[row]][0]) for picture in told)


def test_the_clips_of_a_chain_follow_each_other():
    source = SpriteSource(chained(4), (16, 24), 0)
    for row, clip in pairwise(range(40)):
        if clip % 4:
            before, after = (render(source.clip(number), **SHAPE) for number in (row, clip))
            torch.testing.assert_close(after[0], before[-1], rtol=0, atol=1e-5)


def test_hand_overs_are_made_once_for_a_model(tmp_path):
    source, model, other = SpriteSource(chained(), (16, 24), 0), Fading(), Fading()
    cached_hand_overs(tmp_path, source, model, "one")
    asked = len(model.asked)
    cached_hand_overs(tmp_path, source, model, "one")
    assert len(model.asked) == asked
    cached_hand_overs(tmp_path, source, other, "other")
    assert len(other.asked) == asked


def test_a_share_of_the_images_is_handed_over_and_no_clip():
    phase = chained(hand_over=0.4, drop_image=0.1, batch_size=120, clips=240)
    source = SpriteSource(phase, (16, 24), 0)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(240, 3, 4, 2, 3, generator=generator).half()
    images = torch.randint(0, 100, (240, 3, 16, 24), generator=generator).byte()
    cache = {(16, 24): LatentClips(latents, images, source, range(20, 260))}  # as if clips 0 to 19 had been skipped
    batches = [
        DiffusionObjective(random_pipeline(), chained(hand_over=share, drop_image=0.1, batch_size=120, clips=240), cache, 0,
                           hand_overs={(16, 24): torch.cat([images[:20] * 0, images + 100])}).batch(0)
        for share in (0.4, 0.0)
    ]  # fmt: skip
    handed, plain = (batch["images"] for batch in batches)
    changed = (handed != plain).flatten(1).any(1)
    assert changed.float().mean() == pytest.approx(0.36, abs=0.12)
    torch.testing.assert_close(handed[changed], plain[changed] + from_uint8(torch.tensor(100)) + 1)
    white = (plain == 1).flatten(1).all(1)
    assert white.any() and not (changed & white).any()
    assert torch.equal(batches[0]["latents"], batches[1]["latents"])


def test_a_recipe_with_hand_overs_runs_and_keeps_them(tmp_path):
    recipe = Recipe("chained", "sprites", (chained(hand_over=0.5, clips=8, sample_steps=1),))
    assert run_recipe(recipe, tmp_path, start=SHIPPED).is_file()
    (path,) = tmp_path.glob("hand-overs-*/*.safetensors")
    assert load_file(path)["images"].shape == (8, 3, 16, 24)


def test_a_branch_that_is_untrained_has_nothing_to_hand_over(tmp_path):
    with pytest.raises(InputError, match=r"hand_over is 0\.5, but this model's branch is untrained"):
        run_recipe(Recipe("chained", "sprites", (chained(hand_over=0.5),)), tmp_path)


@pytest.mark.parametrize(("settings", "words"), [
    ({"stages": 1, "hand_over": 0.1}, "hand_over is 0.1; a chain of 2 chain_stages or more"),
    ({"trainable": ("unet",), "hand_over": 0.1}, "a retention branch that is trained"),
    ({"margin": 0.05}, "margin is 0.05; chains keep their sprites inside"),
    ({"stages": 0}, "chain_stages is 0; allowed: 1 or more"),
    ({"hand_over": 1.5}, "hand_over, a probability, is 1.5; allowed: 0 to 1"),
])  # fmt: skip
def test_chains_that_cannot_be(settings, words):
    with pytest.raises(ValueError, match=words):
        chained(**settings)
