"""Noise schedules of public models in ComfyUI's samplers, against the core's DDIM. In the test process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from schedules import DYNAMICRAFTER, I2VGEN, MODELSCOPE, SPRITES, predict
from tiny import TINY, random_pipeline

from dreamvideo_core.models.config import ScheduleConfig
from dreamvideo_core.sampling.schedule import NoiseSchedule, alphas_cumprod, clean_scales

SHAPE, SEED = (3, 4, 2, 3), 5  # frames of one clip
DYNAMICRAFTER_1024, VIDEOCRAFTER2 = replace(DYNAMICRAFTER, base_scale=0.3), replace(MODELSCOPE, base_scale=0.7)
# ComfyUI's scheduler that takes the same timesteps, and how far the latents may lie apart, relative to their norm. Where
# ComfyUI begins at the noisiest timestep of zero terminal SNR, its abar is 4.9e-8 there and not 0: 2.2e-4 of a prediction.
CASES = {
    "modelscope": (MODELSCOPE, "simple", 1e-5),
    "sprites": (SPRITES, "simple", 1e-5),
    "videocrafter2": (VIDEOCRAFTER2, "simple", 1e-5),
    "i2vgen": (I2VGEN, "ddim_uniform", 1e-5),
    "dynamicrafter": (DYNAMICRAFTER, "simple", 2.2e-4),
    "dynamicrafter 1024": (DYNAMICRAFTER_1024, "simple", 2.2e-4),
}


class Sampler:
    """A tiny model of a schedule, with `predict` in its network's place; `seen` is what the network was given."""

    def __init__(self, host: InProcessComfyUI, schedule: ScheduleConfig, monkeypatch: pytest.MonkeyPatch):
        path = host.base.models / "dreamvideo" / "scheduled.safetensors"
        random_pipeline(replace(TINY, schedule=schedule)).save(path, dtype=torch.float32)
        self.host, self.seen = host, []
        self.patcher, clip = host.call("LoadDreamVideo", checkpoint=path.name, weight_dtype="default")[:2]
        self.text = host.call("CLIPTextEncode", clip=clip, text="")[0]
        monkeypatch.setattr(self.patcher.model.diffusion_model, "forward", self._network)

    def _network(self, x: torch.Tensor, timesteps: torch.Tensor, **rest: Any) -> torch.Tensor:
        self.seen.append((x, timesteps))
        return predict(x, timesteps)

    def __call__(self, latents: torch.Tensor | None = None, **options: Any) -> torch.Tensor:
        """What ComfyUI's KSampler makes of noise and `latents`; both as the network sees them."""
        model = self.patcher.model
        given = torch.zeros(SHAPE) if latents is None else model.process_latent_out(latents)
        inputs = {"seed": SEED, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "simple", "denoise": 1.0, **options}
        texts = {"positive": self.text, "negative": self.text}
        (made,) = self.host.call("KSampler", model=self.patcher, latent_image={"samples": given}, **texts, **inputs)
        return model.process_latent_in(made["samples"])


Make = Callable[[ScheduleConfig], Sampler]


@pytest.fixture
def sampler_of(host: InProcessComfyUI, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda schedule: Sampler(host, schedule, monkeypatch)


def noise() -> torch.Tensor:
    """What ComfyUI draws of the seed."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(SEED))


@pytest.mark.parametrize("case", CASES)
def test_ddim_is_that_of_the_core(sampler_of, case):
    schedule, scheduler, tolerance = CASES[case]
    sampler = sampler_of(schedule)
    for name, steps in (("ddim", 5), ("euler", 50)):
        sampler.seen.clear()
        made = sampler(sampler_name=name, scheduler=scheduler, steps=steps)
        assert [int(timesteps[0]) for _, timesteps in sampler.seen] == NoiseSchedule(schedule).timesteps(steps)
        *_, expected = NoiseSchedule(schedule).ddim(predict, noise(), steps)
        assert (made - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("case", CASES)
def test_sigmas_are_noise_over_signal(sampler_of, case):
    schedule = CASES[case][0]
    sigmas = sampler_of(schedule).patcher.model.model_sampling.sigmas.double()
    torch.testing.assert_close(1 / (1 + (sigmas * clean_scales(schedule)) ** 2), alphas_cumprod(schedule), rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", [MODELSCOPE, SPRITES])
def test_usual_schedules_are_comfyuis_own(sampler_of, schedule):
    from comfy.model_sampling import ModelSamplingDiscrete

    sampler = sampler_of(schedule)
    assert torch.equal(sampler.patcher.model.model_sampling.sigmas, ModelSamplingDiscrete().sigmas)
    assert type(sampler.patcher.model.model_sampling).__module__ == "comfy.model_base"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("denoise", "timestep"), [(0.5, 499), (0.1, 99)])
def test_a_run_from_latents_begins_as_the_model_was_trained(sampler_of, case, denoise, timestep):
    schedule = CASES[case][0]
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    sampler = sampler_of(schedule)
    sampler(latents, steps=10, denoise=denoise)
    seen, timesteps = sampler.seen[0]
    assert set(timesteps.tolist()) == {timestep}
    expected = NoiseSchedule(schedule).add_noise(latents, noise(), timestep)
    torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["i2vgen", "dynamicrafter 1024"])
@pytest.mark.parametrize("scheduler", ["simple", "ddim_uniform"])
def test_a_run_from_nothing_begins_with_unit_variance(sampler_of, case, scheduler):
    sampler = sampler_of(CASES[case][0])
    sampler(steps=5, scheduler=scheduler)
    torch.testing.assert_close(sampler.seen[0][0], noise(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schedule", [I2VGEN, DYNAMICRAFTER_1024], ids=["i2vgen", "dynamicrafter 1024"])
def test_masked_latents_are_noised_as_little_as_the_rest(sampler_of, schedule):
    """Inpainting asks for them in every step; of empty ones, too."""
    model = sampler_of(schedule).patcher.model
    sigmas = model.model_sampling.sigmas[[10, 10, 10]]
    got = model.scale_latent_inpaint(sigma=sigmas, noise=noise(), latent_image=torch.zeros(SHAPE), x=None)
    torch.testing.assert_close(got, noise() * sigmas[0])
