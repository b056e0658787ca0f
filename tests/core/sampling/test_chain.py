"""Clips that go on from each other, and colours that do not drift."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from kornia.color import rgb_to_lab
from tiny import config, random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.chain import ChainProtocol, measure_chains
from dreamvideo_core.media.colour import match_colours
from dreamvideo_core.sampling.chain import MAX_STAGES, Stage, join_stages, plan_stages, run_chain
from dreamvideo_core.sprites import render, render_batch, sample_chain, sentence
from dreamvideo_core.sprites.scene import advanced, seeded


@pytest.fixture(scope="module")
def pipeline():
    return random_pipeline()


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_one_stage_a_line():
    assert plan_stages("left\n\n  # a comment\r\n\tright  \n", seed=5) == [Stage(1, "left", 5), Stage(2, "right", 6)]
    assert plan_stages("a\nb", seed=2**64 - 1)[1].seed == 0


def test_seeds_of_single_stages():
    assert [stage.seed for stage in plan_stages("a\nb\nc\nd", 5, " - 77,\n0 ")] == [5, 77, 0, 8]


@pytest.mark.parametrize(
    ("prompts", "seeds", "words"),
    [
        ("", "", "prompts has no sentence; write one a line"),
        ("\n # only\n", "", "no sentence"),
        ("a\n" * (MAX_STAGES + 1), "", "has 65 sentences; allowed: up to 64"),
        ("a\nb", "1 2 3", "names 3 seeds for 2 sentences"),
        ("a", "-1", "seeds holds '-1'; allowed: whole numbers from 0 to 18446744073709551615"),
        ("a", "18446744073709551616", "seeds holds"),
        ("a", "²", "seeds holds"),
        ("a", "1" * 5000, r"^seeds holds '1{1,40}\.\.\.1*'; allowed"),
        ("the circle \ud83d moves", "", r"prompts has half a character, in 'he circle \\ud83d moves'; allowed: whole ones"),
    ],
)
def test_what_is_no_plan(prompts, seeds, words):
    with pytest.raises(InputError, match=words):
        plan_stages(prompts, 0, seeds)


def test_as_many_stages_as_allowed():
    assert len(plan_stages("a\n" * MAX_STAGES, 0)) == MAX_STAGES


def test_seams():
    clips = [torch.tensor([0, 1, 2]), torch.tensor([2, 3, 4]), torch.tensor([4, 5, 6])]
    assert join_stages(clips, "merge").tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert join_stages(clips, "keep").tolist() == [0, 1, 2, 2, 3, 4, 4, 5, 6]
    with pytest.raises(InputError, match="seam is 'blend'; allowed: merge, keep"):
        join_stages(clips, "blend")
    with pytest.raises(InputError, match=r"frames of \(8, 8, 3\), \(8, 16, 3\); give all one size"):
        join_stages([torch.zeros(2, 8, 8, 3), torch.zeros(2, 8, 16, 3)], "merge")


@pytest.mark.parametrize("image", [picture(), None])
def test_a_chain_is_its_stages_by_hand(pipeline, image):
    told = []
    options = {"text_scale": 2.0, "image_scale": 1.5, "height": 16, "width": 16}
    made = run_chain(pipeline, plan_stages("left\nright", 4), image, seam="keep", on_stage=told.append, **options)
    first = pipeline("left", image, seed=4, **options)[0]
    second = pipeline("right", first[-1:], seed=5, **options)[0]
    assert torch.equal(made.frames, torch.cat([first, second]))
    assert torch.equal(made.hand_overs, torch.stack([first[-1], second[-1]]))
    assert [stage.number for stage in told] == [1, 2]


def test_only_later_stages_change_with_a_sentence(pipeline):
    one, two = (run_chain(pipeline, plan_stages(text, 0), picture()).frames for text in ("a\nb\nc", "a\nb\nd"))
    assert len(one) == 1 + 3 * 2
    assert torch.equal(one[:5], two[:5]) and not torch.equal(one[5:], two[5:])


def test_a_model_without_a_branch_makes_one_stage():
    pipeline = random_pipeline(config(retention=False))
    assert len(run_chain(pipeline, plan_stages("a", 0)).frames) == 3
    with pytest.raises(InputError, match="2 sentences, but this model has no retention branch"):
        run_chain(pipeline, plan_stages("a\nb", 0))


def statistics(image: torch.Tensor) -> torch.Tensor:
    lab = rgb_to_lab((image + 1) / 2)
    return torch.cat([lab.mean((2, 3)), lab.std((2, 3))], dim=1)


def test_colours_come_back():
    image = torch.nn.functional.interpolate(picture() * 0.4, (32, 32), mode="bicubic").clamp(-1, 1)
    for gain in (0.8, 1.3):
        drifted = image * gain + torch.tensor([0.1, -0.05, 0.2])[:, None, None]
        torch.testing.assert_close(statistics(match_colours(drifted, image)), statistics(image), rtol=0.02, atol=0.2)
        assert (statistics(drifted) - statistics(image)).abs().max() > 5


def test_what_changes_in_a_clip_is_not_taken_back():
    """A sunset stays one, and after a drift it is one again."""
    day = torch.nn.functional.interpolate(picture() * 0.4, (32, 32), mode="bicubic").clamp(-1, 1)
    clip = torch.cat([day, day * 0.5 - 0.3, day.flip(3) * 0.2 - 0.5])
    torch.testing.assert_close(match_colours(clip, day), clip, rtol=0, atol=0.04)
    drifted = clip * 0.9 + 0.05
    errors = (drifted - clip).abs().mean(), (match_colours(drifted, day) - clip).abs().mean()
    assert errors[1] < errors[0] / 3


def test_what_fades_slowly_comes_back():
    image = torch.nn.functional.interpolate(picture() * 0.4, (32, 32), mode="bicubic").clamp(-1, 1)
    fading = torch.cat([image * (1 - 0.002 * number) for number in range(5)])
    faded, held, wanted = (statistics(x[-1:])[:, 3:] for x in (fading, match_colours(fading, image), image))
    assert (faded < 0.995 * wanted).all()
    torch.testing.assert_close(held, wanted, rtol=1e-3, atol=0)


def test_a_ground_that_greys_does_not_make_sprites_garish():
    """Most of a picture is ground, and small autoencoders grey it."""
    stripes = torch.tensor([[0.04, -0.02, -0.06], [-0.06, -0.02, 0.04]])[torch.arange(32) % 2].T[:, None].expand(1, 3, 32, 32)
    made, image = (stripes + stripes.mean(1, keepdim=True)) / 2, stripes.clone()
    for x in (made, image):
        x[:, :, 8:16, 8:16] = torch.tensor([0.7, -0.6, -0.6])[:, None, None]
        x[:, :, 20:28, 20:28] = torch.tensor([-0.6, -0.5, 0.6])[:, None, None]
    assert (match_colours(made, image) - image)[:, :, 8:16, 8:16].abs().max() < 0.02


def test_colours_of_a_single_grey_stay_numbers():
    grey = torch.zeros(2, 3, 8, 8)
    assert match_colours(grey, picture()).isfinite().all()
    torch.testing.assert_close(match_colours(grey, grey[:1]), grey, rtol=0, atol=1e-3)


def test_noise_on_a_flat_picture_is_no_drift():
    """Its spreads are those of the noise alone: a gain out of them would fade a patch that comes later."""
    grey = torch.zeros(1, 3, 16, 16)
    noisy = grey + 0.004 * picture()
    later = noisy.clone()
    later[:, 0, 4:12, 4:12] = 0.8
    clip = torch.cat([noisy, later])
    torch.testing.assert_close(match_colours(clip, grey), clip, rtol=0, atol=0.04)


def test_an_anchored_stage_has_the_colours_of_the_picture_it_was_given(pipeline):
    image, stages = picture() * 0.5, plan_stages("left\nright", 0)
    made = run_chain(pipeline, stages, image, seam="keep", anchor=True, steps=1)
    first = match_colours(pipeline("left", image, seed=0, steps=1)[0], image)
    second = match_colours(pipeline("right", first[-1:], seed=1, steps=1)[0], first[-1:])
    torch.testing.assert_close(made.frames, torch.cat([first, second]))


def test_a_first_stage_without_a_picture_keeps_its_colours(pipeline):
    stages = plan_stages("left\nright", 0)
    free, anchored = (run_chain(pipeline, stages, seam="keep", anchor=anchor, steps=1).frames for anchor in (False, True))
    half = len(free) // 2
    assert torch.equal(free[:half], anchored[:half]) and not torch.equal(free[half:], anchored[half:])


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32)])
def test_a_scene_goes_on_where_its_clip_ends(size):
    height, width = size
    for index in range(20):
        clips = sample_chain(seeded("validation", 0, index), 4, 5, height, width)
        shown = [render(clip, num_frames=5, height=height, width=width) for clip in clips]
        for before, after in pairwise(shown):
            torch.testing.assert_close(after[0], before[-1], rtol=0, atol=1e-5)


class Truth:
    """Stands in for a pipeline: makes the true clip of a sentence about the scene that it is told."""

    def __init__(self, clips):
        self.clips, self.config = iter(clips), SimpleNamespace(takes_image=True)

    def __call__(self, prompt, image, *, num_frames, height, width, **options):
        clip = next(self.clips)
        assert prompt == sentence(clip)
        return self.frames(render_batch([clip], num_frames=num_frames, height=height, width=width))

    def frames(self, true):
        return true


class Fading(Truth):
    """The truth, darker by a tenth."""

    def frames(self, true):
        return (true + 1) * 0.9 - 1


PROTOCOL = ChainProtocol(
    chains=1, stages=4, seed=0, height=32, width=32, num_frames=5, steps=1, text_scale=1.0, image_scale=1.0
)


def test_the_truth_scores_full_marks_at_every_stage():
    clips = sample_chain(seeded("test", 0, 0), 4, 5, 32, 32)
    for row in measure_chains(Truth(clips), PROTOCOL):
        assert all(value == pytest.approx(1, abs=1e-4) for value in row.values()), row


def test_fading_is_found_out_and_the_anchor_takes_it_back():
    clips = sample_chain(seeded("test", 0, 0), 4, 5, 32, 32)
    for row in measure_chains(Fading(clips), PROTOCOL):
        assert row["brightness"] < 0.95 and row["action_done"] == row["action_accuracy"] == 1
    for row in measure_chains(Fading(clips), replace(PROTOCOL, anchor=True)):
        assert row["brightness"] == pytest.approx(1, abs=0.03) and row["action_accuracy"] == 1


def test_after_no_frames_a_scene_is_itself():
    clip = sample_chain(seeded("test", 0, 1), 1, 5, 32, 32)[0]
    assert advanced(clip, 0, 32, 32) == clip.scene
