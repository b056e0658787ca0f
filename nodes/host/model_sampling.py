"""A model's noise schedule as ComfyUI's `model_sampling`: ComfyUI's own classes, and one for what they lack."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
from comfy.supported_models_base import BASE
from torch import Tensor

from ...dreamvideo_core.models.config import ScheduleConfig
from ...dreamvideo_core.sampling.schedule import clean_scales

# ComfyUI's names: its "linear" is linear in the roots, and its own "squaredcos_cap_v2" gives no tensor.
_BETA_SCHEDULES = {"scaled_linear": "linear", "squaredcos_cap_v2": "cosine"}


def sampling_settings(schedule: ScheduleConfig) -> dict[str, Any]:
    """The settings of ComfyUI's `ModelSamplingDiscrete` for this schedule, but for its `base_scale`."""
    settings = {
        "beta_schedule": _BETA_SCHEDULES[schedule.beta_schedule],
        "linear_start": schedule.beta_start,
        "linear_end": schedule.beta_end,
        "timesteps": schedule.num_train_timesteps,
    }
    return {**settings, "zsnr": True} if schedule.rescale_betas_zero_snr else settings


def own_model_sampling(model_config: BASE, schedule: ScheduleConfig) -> comfy.model_sampling.ModelSamplingDiscrete | None:
    """What takes the place of ComfyUI's object, or None where that does."""
    if schedule.base_scale == 1 and not schedule.rescale_betas_zero_snr:
        return None
    kinds = {"epsilon": _ScaledEpsilon, "v_prediction": _ScaledV}
    return kinds[schedule.prediction_type](model_config, schedule)


class _ScaledSampling(comfy.model_sampling.ModelSamplingDiscrete):
    """Sampling of a model whose clean latents are multiplied by s_t (`ScheduleConfig.base_scale`), or that ends in pure noise.

    Samplers see x = z_0 + sigma' e with sigma' = sqrt(1 - abar) / (sqrt(abar) s). So s x and s sigma' are what ComfyUI's own
    formulas take, and s z_0 what they give.
    """

    def __init__(self, model_config: BASE, schedule: ScheduleConfig):
        super().__init__(model_config)
        self.register_buffer("scales", clean_scales(schedule).float())
        self.set_sigmas(self.sigmas / self.scales)

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        sigma, scale = self._with_scale(sigma, noise)
        return super().calculate_input(sigma * scale, noise * scale)

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        sigma, scale = self._with_scale(sigma, model_input)
        return super().calculate_denoised(sigma * scale, model_output, model_input * scale) / scale

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False) -> Tensor:
        """Where a run begins. With zero terminal SNR empty latents become noise of unit variance, as in diffusers.

        ComfyUI does so at the noisiest timestep alone, but "ddim_uniform" begins below it. A sampler begins with a single
        sigma; inpainting, which comes here in every step, has one for each of the batch.
        """
        begins_empty = self.zsnr and sigma.ndim == 0 and not latent_image.any()
        sigma, scale = self._with_scale(sigma, noise)
        return super().noise_scaling(sigma * scale, noise, latent_image * scale, max_denoise or begins_empty) / scale

    def _with_scale(self, sigma: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """sigma' and the s of the nearest timestep, which is what the network is told; both (B or 1, 1, ...) like `like`."""
        sigma = sigma.reshape(-1)
        scale = self.scales[self.timestep(sigma).to(self.scales.device)].to(sigma.device)
        shape = -1, *[1] * (like.ndim - 1)
        return sigma.view(shape), scale.view(shape)


class _ScaledEpsilon(_ScaledSampling, comfy.model_sampling.EPS):
    """For a network that predicts the noise."""


class _ScaledV(_ScaledSampling, comfy.model_sampling.V_PREDICTION):
    """For a network that predicts v."""
