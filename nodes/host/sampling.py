"""Sampling as ComfyUI's KSampler does it, by a guider of ours."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from .guider import Guider
from .previews import preview_callback


def sampler_names() -> list[str]:
    """The samplers of this ComfyUI; other packs may have added theirs."""
    return list(comfy.samplers.SAMPLER_NAMES)


def scheduler_names() -> list[str]:
    """The schedulers of this ComfyUI; other packs may have added theirs."""
    return list(comfy.samplers.SCHEDULER_NAMES)


def sampling_sigmas(model, sampler: str, scheduler: str, steps: int, denoise: float) -> Tensor:
    """The sigmas of a run. With `denoise` below 1 they are the last ones of a longer run; with 0 there are none."""
    if denoise <= 0:
        return torch.empty(0)
    return comfy.samplers.KSampler(model, steps, model.load_device, sampler, scheduler, denoise).sigmas


def with_channels(model, latent: dict[str, Any]) -> dict[str, Any]:
    """A LATENT whose samples, where they are empty, have as many channels as the model's."""
    return {**latent, "samples": comfy.sample.fix_empty_latent_channels(model, latent["samples"])}


def sample(guider: Guider, latent: dict[str, Any], sampler: str, sigmas: Tensor, seed: int) -> dict[str, Any]:
    """The LATENT that `guider` makes of a LATENT with noise from `seed`, through these sigmas."""
    samples = latent["samples"]
    result = guider.sample(
        comfy.sample.prepare_noise(samples, seed, latent.get("batch_index")),
        samples,
        comfy.samplers.sampler_object(sampler),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=preview_callback(guider.model_patcher, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": result.to(comfy.model_management.intermediate_device())}
