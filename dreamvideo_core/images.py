"""Pictures in and out: fit an image to a clip's size, check it, lay frames out on a sheet."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from kornia.geometry.transform import resize
from PIL import Image, ImageOps
from torch import Tensor

from .checks import InputError

FITS = ("crop", "pad", "stretch")


def white_image(batch: int, height: int, width: int, *, device=None, dtype=None) -> Tensor:
    """The paper's empty image: (B, 3, H, W), every value +1."""
    return torch.ones(batch, 3, height, width, device=device, dtype=dtype)


def read_image(path: str | Path, name: str = "image") -> Tensor:
    """The picture in a file as (1, 3, H, W) in [-1, 1]: upright, on white where transparent; of an animation the first.

    `name` is what the person calls the input, for the message of the `InputError` that an unreadable file raises.
    """
    if not Path(path).is_file():
        raise InputError(f"{name} is {str(path)!r}, and there is no such file; give the path of a picture")
    try:
        with Image.open(path) as picture:
            rgb = to_rgb(ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"{name} is {str(path)!r}, which is no readable picture ({error}); give a whole file that Pillow reads, "
            "such as .png, .jpg or .webp"
        ) from error
    return from_uint8(torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None])


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits of red, green and blue, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        return Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def to_uint8(image: Tensor) -> Tensor:
    """Values in [-1, 1] to bytes 0 to 255 on the CPU, in the same shape; what is beyond is cut off."""
    return ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()


def from_uint8(image: Tensor) -> Tensor:
    """Bytes 0 to 255 to values in [-1, 1], in the same shape."""
    return image.float() / 127.5 - 1


def to_picture(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [-1, 1] for Pillow."""
    return Image.fromarray(rearrange(to_uint8(image), "c h w -> h w c").numpy())


def fit_image(image: Tensor, height: int, width: int, fit: str = "crop", place: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Bring an image (B, 3, H, W) to `height` x `width`; the range of its values is kept.

    `crop` fills the frame and cuts what is over, `pad` keeps the whole picture and repeats its border,
    `stretch` ignores the aspect ratio. `place` is the share of what is over that goes at the top and at the left.
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
    top, left = (math.floor(share * (n - wanted)) for share, n, wanted in zip(place, new, (height, width), strict=True))
    if fit == "pad":
        return F.pad(resized, (-left, width - new[1] + left, -top, height - new[0] + top), mode="replicate")
    return resized[..., top : top + height, left : left + width]


def contact_sheet(frames: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Frames (N, 3, H, W) in [-1, 1], row by row, as one picture."""
    rows = math.ceil(len(frames) / columns)
    frames = F.pad(frames.float().cpu(), (0, gap, 0, gap), value=1.0)
    blank = frames.new_ones(rows * columns - len(frames), *frames.shape[1:])
    return to_picture(rearrange(torch.cat([frames, blank]), "(r c) k h w -> k (r h) (c w)", r=rows))
