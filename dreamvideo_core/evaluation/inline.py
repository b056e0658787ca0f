"""Pictures and clips inside an HTML page, so that the page is one file and asks no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image
from torch import Tensor

from ..media.images import to_picture

_QUALITY = 95  # of WebP
_MILLISECONDS = 125  # that a frame is shown


def inline_picture(picture: Tensor) -> str:
    """A picture (3, H, W) in [-1, 1], without loss, as the address of an <img>."""
    return _address(_pictures(picture[None]), lossless=True)


def inline_clip(frames: Tensor, milliseconds: Sequence[int] | int = _MILLISECONDS) -> str:
    """A clip (T, 3, H, W) in [-1, 1] that repeats, as the address of an <img>; `milliseconds` is how long frames are shown."""
    first, *others = _pictures(frames)
    options = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0}
    # Every frame whole: one that is kept as a change of the last may keep its traces, which people would judge.
    return _address([first, *others], quality=_QUALITY, kmin=0, kmax=1, **options)


def _pictures(frames: Tensor) -> list[Image.Image]:
    return [to_picture(frame) for frame in frames]


def _address(pictures: list[Image.Image], **options) -> str:
    file = BytesIO()
    pictures[0].save(file, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
