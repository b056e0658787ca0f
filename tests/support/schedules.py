"""The noise schedules of public models, and a stand-in for a network that is sampled on them."""

from __future__ import annotations

import torch
from torch import Tensor

from dreamvideo_core.models.config import ScheduleConfig

MODELSCOPE = ScheduleConfig()
SPRITES = ScheduleConfig(prediction_type="v_prediction")
# DynamiCrafter 512 and 1024 but for their base_scale.
DYNAMICRAFTER = ScheduleConfig(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
I2VGEN = ScheduleConfig(
    beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
    timestep_spacing="leading", steps_offset=1,
)  # fmt: skip
PUBLIC = {"modelscope": MODELSCOPE, "sprites": SPRITES, "dynamicrafter": DYNAMICRAFTER, "i2vgen": I2VGEN}


def predict(latents: Tensor, timestep: Tensor | float) -> Tensor:
    """What the network "says" of latents (B, ...): another thing for every value and timestep, of no more than 1."""
    shift = torch.as_tensor(timestep, dtype=latents.dtype).reshape(-1, *[1] * (latents.ndim - 1)) / 1000
    return torch.tanh(latents.flip(-1) + shift)
