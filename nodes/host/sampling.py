"""Sigmas, computed by ComfyUI's KSampler."""

from __future__ import annotations

import comfy.samplers
import torch
from torch import Tensor


def sampling_sigmas(model, sampler: str, scheduler: str, steps: int, denoise: float) -> Tensor:
    """The sigmas of a run. With `denoise` below 1 they are the last ones of a longer run; with 0 there are none."""
    if denoise <= 0:
        return torch.empty(0)
    return comfy.samplers.KSampler(model, steps, model.load_device, sampler, scheduler, denoise).sigmas
