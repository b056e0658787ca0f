"""What a frame of a generated clip has lost, done to a true one: a chain hands such frames over as images."""

from __future__ import annotations

import numpy as np
import torch
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_saturation
from kornia.filters import gaussian_blur2d
from torch import Tensor

SOFTNESS = 0.02  # the largest sigma of the blur, as a share of the shorter side
COLOUR = 0.35  # contrast and saturation are multiplied by 1 - this to 1 + this
NOISE = 0.04  # the largest standard deviation, of a range of 1


def degraded(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1], each softened, with more or less contrast and saturation, and a little noisy."""

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, len(images))).to(images)

    sigma = (drawn(0.001, SOFTNESS) * min(images.shape[-2:]))[:, None].expand(-1, 2)
    kernel = 2 * round(3 * SOFTNESS * min(images.shape[-2:])) + 1
    pictures = gaussian_blur2d((images + 1) / 2, kernel, sigma)
    pictures = adjust_contrast_with_mean_subtraction(pictures, drawn(1 - COLOUR, 1 + COLOUR))
    pictures = adjust_saturation(pictures, drawn(1 - COLOUR, 1 + COLOUR))
    noise = torch.from_numpy(rng.standard_normal(images.shape)).to(images)
    pictures = pictures + drawn(0, NOISE)[:, None, None, None] * noise
    return pictures.clamp(0, 1) * 2 - 1
