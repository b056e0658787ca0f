"""Sampling against DynamiCrafter's own loops, whose numbers stand in data/lvdm_ddim.json.

They were made by hand with `said` in place of the network and `wave` in place of random numbers, on clips of `SHAPE`.
"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deviation import relative_error
from schedules import DYNAMICRAFTER, predict
from torch import Tensor

from dreamvideo_core.models.config import ModelConfig, SamplingDefaults, ScheduleConfig
from dreamvideo_core.models.image_conditions import ImageConditions
from dreamvideo_core.sampling.guidance import Guidance
from dreamvideo_core.sampling.guided_step import GuidedModel
from dreamvideo_core.sampling.schedule import NoiseSchedule, alphas_cumprod

NUMBERS = json.loads((Path(__file__).parent / "data" / "lvdm_ddim.json").read_text())
SHAPE = 2, 3, 2, 1, 2  # B T C H W
FAMILIES = {
    "256": ScheduleConfig(timestep_spacing="leading", steps_offset=1),
    "512": replace(DYNAMICRAFTER, base_scale=0.7),
    "1024": replace(DYNAMICRAFTER, base_scale=0.3),
}


def wave(number: int) -> Tensor:
    """Stands for draw `number` of noise; 0 is where sampling begins."""
    values = math.sqrt(2) * torch.sin(1.7 * torch.arange(math.prod(SHAPE), dtype=torch.float64) + 0.9 * number)
    return values.view(SHAPE).float()


def said(latents: Tensor, timestep: int, text: float, image: float) -> Tensor:
    """Stands for the network's prediction under two conditions."""
    return torch.tanh(predict(latents, timestep) * 2 + 0.7 * text - 0.4 * image * latents.flip(-1))


def waves():
    numbers = iter(range(1, 1000))
    return lambda: wave(next(numbers))


def their_states(run: dict) -> dict[int, Tensor]:
    return {int(step): torch.tensor(values).view(SHAPE) for step, values in run["states"].items()}


def named(run: dict) -> str:
    return " ".join(str(run[name]) for name in run if name not in ("states", "timesteps"))


@pytest.mark.parametrize("run", NUMBERS["runs"], ids=named)
def test_ddim_is_theirs_up_to_the_last_step(run):
    schedule, steps, eta = NoiseSchedule(FAMILIES[run["family"]]), run["steps"], run["eta"]
    assert schedule.timesteps(steps) == run["timesteps"]
    ours = list(schedule.ddim(predict, wave(0), steps, eta, waves()))
    # With 50 steps and eta 1, their first step keeps sqrt(6e-8) of the old noise: 1 - abar - sigma^2, which is 0, in float32.
    most = 3e-4 if eta and steps == 50 and schedule.config.rescale_betas_zero_snr else 1e-5
    for step, theirs in their_states(run).items():
        assert step == steps or relative_error(ours[step - 1], theirs) < most


@pytest.mark.parametrize("run", [run for run in NUMBERS["runs"] if run["steps"] == 5], ids=named)
def test_the_last_step_goes_to_the_clean_latents_where_theirs_stops_before(run):
    """Theirs ends at abar of timestep 0 and keeps s of its last timestep: abar 0.99915, and s 0.986 in 50 steps of 512."""
    schedule, timestep, eta = NoiseSchedule(FAMILIES[run["family"]]), run["timesteps"][-1], run["eta"]
    states = their_states(run)
    prediction = predict(states[4], timestep)
    clean, noise = schedule.split(states[4], prediction, timestep)
    assert torch.equal(schedule.ddim_step(states[4], prediction, timestep, None, eta, wave(5)), clean)
    abar = alphas_cumprod(schedule.config)
    scale = 1 - (1 - schedule.config.base_scale) * timestep / 399
    sigma = eta * math.sqrt((1 - abar[0]) / (1 - abar[timestep]) * (1 - abar[timestep] / abar[0]))
    theirs = abar[0].sqrt() * scale * clean + (1 - abar[0] - sigma**2).sqrt() * noise + sigma * wave(5)
    assert relative_error(theirs, states[5]) < 1e-6


class Network:
    """What guidance calls of a model, for `said`."""

    def __init__(self, family: str):
        self.config = ModelConfig(
            unet=None, retention=None, schedule=FAMILIES[family], sampling=SamplingDefaults(rescaled="prediction")
        )

    def encode(self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int, image: ImageConditions) -> Tensor:
        return said(latents, timesteps[0].item(), text.flatten()[0].item(), image.tokens.flatten()[0].item())

    def decode(self, encoding: Tensor) -> Tensor:
        return encoding


def guided(family: str, guidance: Guidance) -> GuidedModel:
    texts = {given: torch.full((2, 1, 1), float(given)) for given in (True, False)}
    conditions = {given: ImageConditions(tokens=torch.full((6, 1, 1), float(given))) for given in (True, False)}
    return GuidedModel(Network(family), texts, {}, guidance, conditions=conditions)


@pytest.mark.parametrize("run", NUMBERS["guided"], ids=named)
def test_image_first_is_their_guidance(run):
    """With two scales the multi-condition sampler's, with equal ones that of two evaluations; v is rescaled by 0.7."""
    guidance = Guidance(run["text_scale"], run["image_scale"], "image_first", run["rescale"])
    ours = list(NoiseSchedule(FAMILIES[run["family"]]).ddim(guided(run["family"], guidance), wave(0), 5))
    for step, theirs in their_states(run).items():
        assert relative_error(ours[step - 1], theirs) < 1e-5


def test_rescaled_clean_latents_are_rescaled_predictions_at_pure_noise_alone():
    model = guided("512", Guidance(7.5, 7.5, "image_first", 0.7))
    as_prediction = {timestep: model(wave(0), timestep) for timestep in (999, 799)}
    model.model.config = replace(model.model.config, sampling=SamplingDefaults())
    torch.testing.assert_close(model(wave(0), 999), as_prediction[999])
    assert relative_error(model(wave(0), 799), as_prediction[799]) > 0.05
