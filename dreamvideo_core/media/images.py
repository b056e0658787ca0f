"""Pictures: reading them, fitting them to a clip's size, and contact sheets of frames."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from kornia.filters import gaussian_blur2d
from PIL import Image, ImageOps
from torch import Tensor

from ..common.checks import InputError, check_choice

FITS = ("crop", "pad", "stretch")
_BRIGHTEST_FRACTION = 16  # grey values up to here have white at 1, with highlights above; larger ones have it at 255 or more


def white_image(batch: int, height: int, width: int, *, device=None, dtype=None) -> Tensor:
    """The paper's empty image: (B, 3, H, W), every value +1."""
    return torch.ones(batch, 3, height, width, device=device, dtype=dtype)


def read_image(path: str | Path, name: str = "image") -> Tensor:
    """The picture in a file, (1, 3, H, W) in [-1, 1]: upright, transparency laid on white, the first of an animation.

    Raises `InputError` for an unreadable file; `name` is the input that names it.
    """
    if not Path(path).is_file():
        raise InputError(f"{name} is {str(path)!r}, and there is no such file; give the path of a picture")
    try:
        with Image.open(path) as picture:
            rgb = to_rgb(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's readers raise anything for damaged files
        raise InputError(
            f"{name} is {str(path)!r}, which is no readable picture ({error}); give a whole file that Pillow reads, "
            "such as .png, .jpg or .webp"
        ) from error
    return from_uint8(torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None])


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in 8 bits of red, green and blue, on white where it is transparent."""
    if picture.mode.startswith("I") or picture.mode == "F":
        return _grey_to_rgb(np.asarray(picture))
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _grey_to_rgb(values: np.ndarray) -> Image.Image:
    """Grey of more than 8 bits; Pillow's own conversion clips it at 255.

    The file does not say which value is white, so it is guessed: 1 for fractions, else the largest value of the smallest
    common type that holds all values.
    """
    whites = (65535, 2**31 - 1, 2**32 - 1)
    if values.dtype.kind == "f":
        values, whites = np.nan_to_num(values, posinf=0, neginf=0), (_BRIGHTEST_FRACTION, 255, *whites)
    elif values.dtype == np.int32 and values.min() < -(2**16):  # Pillow reads unsigned 32 bits as signed ones
        values = values.view(np.uint32)
    white = next((white for white in whites if values.max() <= white), whites[-1])
    white = 1 if white == _BRIGHTEST_FRACTION else white
    return Image.fromarray((values.clip(0, white) / white * 255.0).round().astype(np.uint8)).convert("RGB")


def to_uint8(image: Tensor) -> Tensor:
    """Values in [-1, 1] to bytes 0 to 255 on the CPU, in the same shape; values outside are clamped."""
    return ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte()


def from_uint8(image: Tensor) -> Tensor:
    """Bytes 0 to 255 to values in [-1, 1], in the same shape."""
    return image.float() / 127.5 - 1


def to_picture(image: Tensor) -> Image.Image:
    """An image (3, H, W) in [-1, 1] for Pillow."""
    return Image.fromarray(rearrange(to_uint8(image), "c h w -> h w c").numpy())


def fit_image(image: Tensor, height: int, width: int, fit: str = "crop", position: tuple[float, float] = (0.5, 0.5)) -> Tensor:
    """Bring an image (B, 3, H, W) to `height` x `width`; the range of its values is kept.

    `crop` fills the frame and cuts off the rest, `pad` keeps the whole picture and repeats its border, `stretch` ignores
    the aspect ratio. `position` is the share of the rest, or of the border, that goes to the top and to the left; the
    defaults centre the picture.
    """
    check_choice("fit", fit, FITS)
    old_height, old_width = image.shape[-2:]
    if (old_height, old_width) == (height, width):
        return image
    ratios = height / old_height, width / old_width
    scale = {"crop": max(ratios), "pad": min(ratios), "stretch": None}[fit]
    new = (height, width) if scale is None else tuple(max(1, round(n * scale)) for n in (old_height, old_width))
    low, high = image.amin(), image.amax()
    rows, columns = (
        _Resizing(old, size, math.floor(share * (size - wanted)), wanted)
        for old, size, share, wanted in zip(image.shape[-2:], new, position, (height, width), strict=True)
    )
    # An enlarged axis is cropped first: the whole of a long narrow picture would be huge at the clip's size.
    cropped = image[..., rows.first : rows.end, columns.first : columns.end]
    if max(rows.factor, columns.factor) > 1:
        cropped = gaussian_blur2d(cropped, (rows.kernel, columns.kernel), (rows.sigma, columns.sigma))
    for axis, resizing in sorted(((-2, rows), (-1, columns)), key=lambda pair: -pair[1].factor):
        cropped = resizing.resize(cropped, axis)
    return cropped.clamp_(low, high)  # bicubic interpolation overshoots


class _Resizing:
    """One axis of `old` pixels resized to `size`, of which `count` from `start` on are made; beyond, the border repeats.

    Bicubic; an axis that shrinks is first smoothed as much as kornia's `resize` does.
    """

    def __init__(self, old: int, size: int, start: int, count: int):
        self.factor = old / size
        self.sigma = max((self.factor - 1) / 2, 0.001)
        self.kernel = 1 if old == 1 else max(int(4 * self.sigma), 3) | 1
        # float64: float32 is off by a thousandth of a pixel in a picture of 8000.
        wanted = torch.arange(start, start + count, dtype=torch.float64).clamp(0, size - 1)
        self.positions = (wanted + 0.5) * self.factor - 0.5  # in pixels of the old axis
        self.first, self.end = 0, old  # the old pixels that are needed
        if self.factor < 1:
            self.first, self.end = max(0, math.floor(self.positions[0]) - 1), min(old, math.floor(self.positions[-1]) + 3)

    def resize(self, cropped: Tensor, axis: int) -> Tensor:
        """`cropped` holds the old pixels from `first` to `end` along `axis`, a negative number."""
        positions = self.positions - self.first
        low = positions.floor()
        shift = (positions - low).to(cropped).view([-1] + [1] * (-1 - axis))
        resized = 0
        for step in range(-1, 3):
            taps = (low + step).clamp(0, cropped.shape[axis] - 1).long().to(cropped.device)
            resized = cropped.index_select(axis, taps).mul_(_cubic(shift - step)).add_(resized)
        return resized


def _cubic(distance: Tensor) -> Tensor:
    """The bicubic weight of a pixel at this distance, with the constant (-0.75) of torch and OpenCV."""
    x, a = distance.abs(), -0.75
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x <= 1, near, far)


def contact_sheet(frames: Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Frames (N, 3, H, W) in [-1, 1] as one picture, row by row with white gaps of `gap` pixels."""
    rows = math.ceil(len(frames) / columns)
    frames = F.pad(frames.float().cpu(), (0, gap, 0, gap), value=1.0)
    blank = frames.new_ones(rows * columns - len(frames), *frames.shape[1:])
    return to_picture(rearrange(torch.cat([frames, blank]), "(r c) k h w -> k (r h) (c w)", r=rows))
