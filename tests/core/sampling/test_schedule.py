"""The noise schedules of public models and DDIM, against diffusers' schedulers and lvdm's formulas."""

from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from schedules import DYNAMICRAFTER, I2VGEN, MODELSCOPE, PUBLIC, SPRITES, predict

from dreamvideo_core.models.config import ScheduleConfig
from dreamvideo_core.sampling.schedule import NoiseSchedule, alphas_cumprod, clean_scales

SCALED = {
    "dynamicrafter 512": replace(DYNAMICRAFTER, base_scale=0.7),
    "dynamicrafter 1024": replace(DYNAMICRAFTER, base_scale=0.3),
    "videocrafter2": replace(MODELSCOPE, base_scale=0.7),
}


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.fixture(params=PUBLIC | SCALED)
def schedule(request) -> NoiseSchedule:
    return NoiseSchedule((PUBLIC | SCALED)[request.param])


def scheduler(diffusers, config: ScheduleConfig):
    """Diffusers' DDIM; where the steps divide 1000, its "trailing" is "simple" too."""
    settings = {name: value for name, value in asdict(config).items() if name != "base_scale"}
    settings["timestep_spacing"] = settings["timestep_spacing"].replace("simple", "trailing")
    return diffusers.DDIMScheduler(**settings, clip_sample=False, set_alpha_to_one=True)


def clean_and_noise(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", PUBLIC)
def test_alphas_are_those_of_diffusers(diffusers, name):
    ours, theirs = alphas_cumprod(PUBLIC[name]), scheduler(diffusers, PUBLIC[name]).alphas_cumprod
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-6)
    assert (ours[-1] == 0) == PUBLIC[name].rescale_betas_zero_snr


@pytest.mark.parametrize("name", PUBLIC)
def test_noise_and_targets_are_those_of_diffusers(diffusers, name):
    theirs = scheduler(diffusers, PUBLIC[name])
    velocity = diffusers.DDPMScheduler.from_config(theirs.config).get_velocity
    clean, noise = clean_and_noise(5, 2, 4, 3, 3)
    timesteps = torch.tensor([17, 250, 500, 900, 999])  # at 0 the float32 of diffusers loses digits of 1 - abar
    ours = NoiseSchedule(PUBLIC[name])
    noisy = theirs.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(ours.add_noise(clean, noise, timesteps), noisy, rtol=1e-4, atol=1e-5)
    expected = noise if ours.config.prediction_type == "epsilon" else velocity(clean, noise, timesteps)
    torch.testing.assert_close(ours.target(clean, noise, timesteps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("steps", [1, 4, 25, 50])
def test_ddim_is_that_of_diffusers(diffusers, name, steps):
    theirs = scheduler(diffusers, PUBLIC[name])
    theirs.set_timesteps(steps)
    noise = torch.randn(1, 2, 4, 3, 3, generator=torch.Generator().manual_seed(steps))
    expected = noise
    for timestep in theirs.timesteps:
        expected = theirs.step(predict(expected, timestep), timestep, expected, eta=0.0).prev_sample
    ours = NoiseSchedule(PUBLIC[name])
    assert ours.timesteps(steps) == theirs.timesteps.tolist()
    states = list(ours.ddim(predict, noise, steps))
    assert len(states) == steps
    assert (states[-1] - expected).norm() <= 1e-5 * expected.norm()


def test_the_factor_of_clean_latents_is_that_of_lvdm():
    """VideoCrafter and DynamiCrafter: 400 values from 1 to the last one, which all noisier timesteps have."""
    expected = np.concatenate([np.linspace(1, 0.3, 400), np.full(600, 0.3)])
    np.testing.assert_allclose(clean_scales(ScheduleConfig(base_scale=0.3)), expected, rtol=1e-12)
    assert (clean_scales(MODELSCOPE) == 1).all()


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("steps", [4, 50])
def test_ddim_with_scaled_clean_latents_is_that_of_lvdm(name, steps):
    """Its formulas with eta 0, up to the last step: there it ends a little before the clean latents."""
    config = SCALED[name]
    abar, scale = alphas_cumprod(config).numpy(), [*np.linspace(1, config.base_scale, 400), *[config.base_scale] * 600]
    z = noise = torch.randn(1, 2, 4, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(steps))
    ours = NoiseSchedule(config)
    timesteps = ours.timesteps(steps)
    expected = []
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        said = predict(z, t)
        if config.prediction_type == "epsilon":
            e = said
            scaled_clean = (z - (1 - abar[t]) ** 0.5 * e) / abar[t] ** 0.5
        else:
            e = abar[t] ** 0.5 * said + (1 - abar[t]) ** 0.5 * z
            scaled_clean = abar[t] ** 0.5 * z - (1 - abar[t]) ** 0.5 * said
        if following is None:
            z = scaled_clean / scale[t]
        else:
            scaled_clean = scaled_clean * scale[following] / scale[t]
            z = abar[following] ** 0.5 * scaled_clean + (1 - abar[following]) ** 0.5 * e
        expected.append(z)
    for state, theirs in zip(ours.ddim(predict, noise, steps), expected, strict=True):
        torch.testing.assert_close(state, theirs, rtol=1e-10, atol=1e-10)


def test_the_target_splits_back_into_clean_latents_and_noise(schedule):
    clean, noise = clean_and_noise(4, 2, 4, 3, 3)
    timesteps = torch.tensor([0, 200, 500, 900])
    noisy = schedule.add_noise(clean, noise, timesteps)
    got = schedule.split(noisy, schedule.target(clean, noise, timesteps), timesteps)
    for one, expected in zip(got, (clean, noise), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("timestep", [0, 200, 900])
def test_a_prediction_splits_into_the_clean_latents_it_is_made_for(schedule, timestep):
    clean, noise = clean_and_noise(4, 2, 4, 3, 3)
    noisy = schedule.add_noise(clean, noise, timestep)
    again, _ = schedule.split(noisy, schedule.prediction(noisy, clean, timestep), timestep)
    torch.testing.assert_close(again, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("timestep", [0, 500, 998, 999])
def test_one_timestep_for_all_clips(schedule, timestep):
    clean, noise = clean_and_noise(3, 2, 4, 3, 3)
    each = torch.full((3,), timestep)
    for function in (schedule.add_noise, schedule.target, schedule.prediction):
        torch.testing.assert_close(function(clean, noise, timestep), function(clean, noise, each), rtol=1e-5, atol=1e-5)
    for one, expected in zip(schedule.split(clean, noise, timestep), schedule.split(clean, noise, each), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [DYNAMICRAFTER, SCALED["dynamicrafter 1024"], I2VGEN], ids=["plain", "scaled", "cosine"])
def test_the_noisiest_timestep_of_zero_terminal_snr_is_noise_alone(config):
    schedule, last = NoiseSchedule(config), 999
    clean, noise = clean_and_noise(3, 2, 4, 3, 3)
    assert torch.equal(schedule.add_noise(clean, noise, last), noise)
    assert not schedule.terminal_signal(clean).any()
    said = schedule.target(clean, noise, last)
    for got, expected in zip(schedule.split(noise, said, last), (clean, noise), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(schedule.prediction(noise, clean, last), said)


def test_what_the_noisiest_timestep_keeps():
    kept = NoiseSchedule(MODELSCOPE).terminal_signal(torch.ones(1, 2))
    torch.testing.assert_close(kept, torch.full((1, 2), 0.068265), rtol=1e-4, atol=0)


def test_a_perfect_prediction_ends_at_the_clean_latents(schedule):
    clean, noise = clean_and_noise(1, 2, 4, 3, 3)
    start = schedule.add_noise(clean, noise, schedule.timesteps(7)[0])
    *_, last = schedule.ddim(lambda latents, timestep: schedule.target(clean, noise, timestep), start, 7)
    torch.testing.assert_close(last, clean, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("spacing", ["simple", "trailing"])
@pytest.mark.parametrize("steps", [1, 3, 7, 30, 999, 1000])
def test_timesteps_start_at_the_noisiest_and_fall(spacing, steps):
    timesteps = NoiseSchedule(replace(SPRITES, timestep_spacing=spacing)).timesteps(steps)
    assert len(timesteps) == steps and timesteps[0] == 999 and timesteps[-1] >= 0
    assert all(a > b for a, b in pairwise(timesteps))


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [3, 7, 30, 50, 500, 999])
def test_timesteps_are_those_of_diffusers(diffusers, spacing, steps):
    config = replace(I2VGEN, timestep_spacing=spacing)
    theirs = scheduler(diffusers, config)
    theirs.set_timesteps(steps)
    assert NoiseSchedule(config).timesteps(steps) == theirs.timesteps.tolist()


@pytest.mark.parametrize(("config", "steps", "most"), [
    (MODELSCOPE, 0, 1000), (MODELSCOPE, -1, 1000), (MODELSCOPE, 1001, 1000), (I2VGEN, 1000, 999),
])  # fmt: skip
def test_counts_of_steps_that_cannot_be(config, steps, most):
    with pytest.raises(ValueError, match=f"steps is {steps}; allowed: 1 to {most}"):
        NoiseSchedule(config).timesteps(steps)
