"""Noise levels, the very ones that ComfyUI's KSampler takes."""

from __future__ import annotations

import comfy.samplers
import torch
from torch import Tensor


def sampling_sigmas(model, sampler: str, scheduler: str, steps: int, denoise: float) -> Tensor:
    """The noise levels of a run; with denoise below 1 the last part of a longer run, none at 0."""
    if denoise <= 0:
        return torch.empty(0)
    return comfy.samplers.KSampler(model, steps, model.load_device, sampler, scheduler, denoise).sigmas
