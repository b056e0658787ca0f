"""Pictures and clips as data URLs, so that an HTML page is one file and needs no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO

from PIL import Image
from torch import Tensor

from ..media.images import to_picture

_QUALITY = 95  # WebP's
_MILLISECONDS = 125  # per frame


def inline_picture(picture: Tensor) -> str:
    """A picture (3, H, W) in [-1, 1] as lossless WebP in a data URL."""
    return _data_url(to_picture(picture), lossless=True)


def inline_clip(frames: Tensor, milliseconds: Sequence[int] | int = _MILLISECONDS) -> str:
    """A clip (T, 3, H, W) in [-1, 1] as animated WebP in a data URL; `milliseconds` is the time per frame, or of each."""
    first, *others = map(to_picture, frames)
    options = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0}
    # Key frames only: differences to the frame before leave traces, and people judge these clips.
    return _data_url(first, quality=_QUALITY, kmin=0, kmax=1, **options)


def _data_url(picture: Image.Image, **options) -> str:
    file = BytesIO()
    picture.save(file, "WEBP", **options)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
