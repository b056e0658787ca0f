"""What a frame of a generated clip has lost, done to a true one: a chain hands such frames over as images."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from kornia.enhance import adjust_contrast_with_mean_subtraction, adjust_saturation
from kornia.filters import gaussian_blur2d
from kornia.geometry.transform import remap
from torch import Tensor

# The most of each, lengths as shares of the shorter side.
SOFTNESS = 0.015  # sigma of the blur
COLOUR = 0.35  # contrast and saturation are multiplied by 1 - this to 1 + this
NOISE = 0.03  # standard deviation from pixel to pixel, of a range of 1
BLOTCHES = 0.06  # the same, from one patch to another
WOBBLE = 0.025  # how far edges are pushed about
PATCHES = 12  # blotches and wobbles on the shorter side


def degraded(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (N, 3, H, W) in [-1, 1], each with wobbly and softened edges, other contrast and saturation, and stains."""

    def drawn(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(images), 1, 1, 1))).to(images)

    def patches(channels: int) -> Tensor:
        """Smooth noise of unit variance, (N, channels, H, W)."""
        cells = [round(PATCHES * n / min(images.shape[-2:])) for n in images.shape[-2:]]
        coarse = torch.from_numpy(rng.standard_normal((len(images), channels, *cells))).to(images)
        return F.interpolate(coarse, images.shape[-2:], mode="bicubic", align_corners=False)

    shorter = min(images.shape[-2:])
    pictures = (_pushed(images, patches(2) * drawn(0, WOBBLE) * shorter) + 1) / 2
    sigma = drawn(0.001, SOFTNESS).view(-1, 1).expand(-1, 2) * shorter
    pictures = gaussian_blur2d(pictures, 2 * round(3 * SOFTNESS * shorter) + 1, sigma)
    pictures = adjust_contrast_with_mean_subtraction(pictures, drawn(1 - COLOUR, 1 + COLOUR).flatten())
    pictures = adjust_saturation(pictures, drawn(1 - COLOUR, 1 + COLOUR).flatten())
    noise = torch.from_numpy(rng.standard_normal(images.shape)).to(images)
    pictures = pictures + drawn(0, BLOTCHES) * patches(3) + drawn(0, NOISE) * noise
    return pictures.clamp(0, 1) * 2 - 1


def _pushed(images: Tensor, offsets: Tensor) -> Tensor:
    """Every pixel taken from as far away as `offsets` (N, 2, H, W) says, x and y in pixels."""
    height, width = images.shape[-2:]
    x, y = torch.meshgrid(torch.arange(width).to(images), torch.arange(height).to(images), indexing="xy")
    return remap(images, x + offsets[:, 0], y + offsets[:, 1], padding_mode="border", align_corners=True)
