"""CLIP's view of a picture."""

from __future__ import annotations

import kornia
import torch
from torch import Tensor

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def prepare(pictures: Tensor, size: int = 224) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as DynamiCrafter gives them to CLIP: stretched to a square (B, 3, size, size)."""
    square = kornia.geometry.resize(pictures, (size, size), interpolation="bicubic", align_corners=True, antialias=True)
    return kornia.enhance.normalize((square + 1) / 2, torch.tensor(MEAN), torch.tensor(DEVIATION))
