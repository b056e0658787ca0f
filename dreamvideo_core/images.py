"""Pictures in and out: fit an image to a clip's size, check it, lay frames out on a sheet."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from kornia.geometry.transform import resize
from PIL import Image
from torch import Tensor

FITS = ("crop", "pad", "stretch")


def white_image(batch: int, height: int, width: int, *, device=None, dtype=None) -> Tensor:
    """The paper's empty image: (B, 3, H, W), every value +1."""
    return torch.ones(batch, 3, height, width, device=device, dtype=dtype)


def fit_image(image: Tensor, height: int, width: int, fit: str = "crop") -> Tensor:
    """Bring an image (B, 3, H, W) to `height` x `width`; the range of its values is kept.

    `crop` fills the frame and cuts what is over, `pad` keeps the whole picture and repeats its border,
    `stretch` ignores the aspect ratio.
    """
    if fit not in FITS:
        raise ValueError(f"fit is {fit!r}; allowed: {', '.join(FITS)}")
    old_height, old_width = image.shape[-2:]
    if (old_height, old_width) == (height, width):
        return image
    ratios = height / old_height, width / old_width
    scale = {"crop": max(ratios), "pad": min(ratios), "stretch": None}[fit]
    new = (height, width) if scale is None else tuple(max(1, round(n * scale)) for n in (old_height, old_width))
    low, high = image.amin(), image.amax()
    resized = resize(image, new, interpolation="bicubic", antialias=True).clamp(low, high)  # bicubic overshoots
    top, left = (new[0] - height) // 2, (new[1] - width) // 2
    if fit == "pad":
        return F.pad(resized, (-left, width - new[1] + left, -top, height - new[0] + top), mode="replicate")
    return resized[..., top : top + height, left : left + width]


def contact_sheet(frames: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Frames (N, 3, H, W) in [-1, 1], row by row, as one picture."""
    rows = math.ceil(len(frames) / columns)
    frames = F.pad(frames.float().cpu(), (0, gap, 0, gap), value=1.0)
    blank = frames.new_ones(rows * columns - len(frames), *frames.shape[1:])
    sheet = rearrange(torch.cat([frames, blank]), "(r c) k h w -> (r h) (c w) k", r=rows)
    return Image.fromarray(((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().numpy())
