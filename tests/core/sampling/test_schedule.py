"""The noise schedule and DDIM against diffusers' schedulers."""

from itertools import pairwise

import pytest
import torch

from dreamvideo_core.sampling.schedule import BETA_END, BETA_START, Diffusion

SCHEDULE = {"beta_start": BETA_START, "beta_end": BETA_END, "beta_schedule": "scaled_linear", "clip_sample": False}
KINDS = ["epsilon", "v_prediction"]


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


def test_noise_and_targets_are_those_of_diffusers(diffusers):
    theirs = diffusers.DDPMScheduler(**SCHEDULE)
    clean, noise = torch.randn(2, 4, 2, 4, 3, 3)
    timesteps = torch.tensor([0, 17, 500, 999])
    ours = Diffusion("v_prediction")
    torch.testing.assert_close(
        ours.add_noise(clean, noise, timesteps), theirs.add_noise(clean, noise, timesteps), rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        ours.target(clean, noise, timesteps), theirs.get_velocity(clean, noise, timesteps), rtol=1e-4, atol=1e-5
    )
    assert Diffusion("epsilon").target(clean, noise, timesteps) is noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 4, 25, 50])
def test_ddim_is_that_of_diffusers(diffusers, kind, steps):
    theirs = diffusers.DDIMScheduler(**SCHEDULE, timestep_spacing="trailing", prediction_type=kind, set_alpha_to_one=True)
    theirs.set_timesteps(steps)
    noise = torch.randn(1, 2, 4, 3, 3, generator=torch.Generator().manual_seed(steps))

    def predict(latents, timestep):
        return torch.tanh(latents.flip(-1) + timestep / 1000)

    expected = noise
    for timestep in theirs.timesteps:
        expected = theirs.step(predict(expected, int(timestep)), timestep, expected, eta=0.0).prev_sample
    ours = Diffusion(kind)
    assert ours.timesteps(steps) == theirs.timesteps.tolist()
    states = list(ours.ddim(predict, noise, steps))
    assert len(states) == steps
    torch.testing.assert_close(states[-1], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_splits_back_into_clean_latents_and_noise(kind):
    diffusion = Diffusion(kind)
    clean, noise = torch.randn(2, 4, 2, 4, 3, 3)
    timesteps = torch.tensor([0, 200, 500, 900])
    noisy = diffusion.add_noise(clean, noise, timesteps)
    for got, expected in zip(
        diffusion.split(noisy, diffusion.target(clean, noise, timesteps), timesteps), (clean, noise), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timestep", [0, 500, 999])
def test_one_timestep_for_all_clips(kind, timestep):
    diffusion = Diffusion(kind)
    clean, noise = torch.randn(2, 3, 2, 4, 3, 3)
    each = torch.full((3,), timestep)
    for function in (diffusion.add_noise, diffusion.target, diffusion.prediction):
        torch.testing.assert_close(function(clean, noise, timestep), function(clean, noise, each), rtol=1e-5, atol=1e-5)
    for one, expected in zip(diffusion.split(clean, noise, timestep), diffusion.split(clean, noise, each), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_ends_at_the_clean_latents(kind):
    diffusion = Diffusion(kind)
    clean, noise = torch.randn(2, 1, 2, 4, 3, 3)

    def predict(latents, timestep):
        return diffusion.target(clean, noise, timestep)

    start = diffusion.add_noise(clean, noise, 999)
    torch.testing.assert_close(list(diffusion.ddim(predict, start, 7))[-1], clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 999, 1000])
def test_timesteps_start_at_the_noisiest_and_fall(steps):
    timesteps = Diffusion().timesteps(steps)
    assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
    assert all(a > b for a, b in pairwise(timesteps))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_counts_of_steps_that_cannot_be(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}; allowed: 1 to 1000"):
        Diffusion().timesteps(steps)
