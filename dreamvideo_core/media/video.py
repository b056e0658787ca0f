"""Writing clips: H.264 in .mp4, animated .webp and .gif, or a folder of numbered PNGs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..common.checks import InputError
from ..common.files import atomic, atomic_folder
from . import h273
from .images import to_uint8

_LARGEST_MP4 = 16384  # pixels a side, x264's limit


def check_output(path: str | Path, name: str = "path") -> None:
    """Raise `InputError` if `save_clip` could not write to `path`; `name` is the input that names it."""
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise InputError(
            f"{name} is {str(path)!r}; allowed: a file that ends in {', '.join(s for s in _WRITERS if s)}, "
            "or a name without an ending, which becomes a folder of PNGs"
        )
    if path.suffix and path.is_dir():
        raise InputError(f"{name} is {str(path)!r}, which is a folder; name a file in it")
    if not path.suffix and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{name} is {str(path)!r}, which exists and is not an empty folder; name another, or remove it")
    for parent in path.absolute().parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{name} is {str(path)!r}, but {str(parent)!r} is a file; name another")
            return


def save_clip(path: str | Path, frames: Tensor, fps: float = 8.0) -> None:
    """Write frames (T, 3, H, W) in [-1, 1] in the format of `path`'s ending. If it fails, nothing is left behind.

    .mp4 needs even H and W up to 16,384; raises `InputError` for others. .webp is lossless; .gif has 256 colours. Both
    repeat, and their writers may merge equal neighbouring frames into one that is shown longer.
    """
    path = Path(path)
    check_output(path)
    pictures = to_uint8(frames).permute(0, 2, 3, 1).contiguous().numpy()
    with atomic(path) if path.suffix else atomic_folder(path) as temporary:
        _WRITERS[path.suffix.lower()](temporary, pictures, fps)


def _write_mp4(path: Path, pictures: np.ndarray, fps: float) -> None:
    import av

    height, width = pictures.shape[1:3]
    if height % 2 or width % 2 or max(height, width) > _LARGEST_MP4:
        raise InputError(
            f"the frames are {width} x {height} pixels; allowed in .mp4: even sides up to {_LARGEST_MP4}. Take another size or "
            "a name without an ending, which becomes a folder of PNGs"
        )

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "14"})
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        context, matrix = stream.codec_context, h273.matrix_of_size(stream.height)
        context.colorspace, context.color_range = matrix, h273.LIMITED
        context.color_primaries = context.color_trc = h273.BT709  # as of sRGB, whatever the size
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            colours = {"dst_colorspace": h273.SWSCALE[matrix], "dst_color_range": h273.LIMITED}
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt, **colours)))
        container.mux(stream.encode())


def _write_animation(path: Path, pictures: np.ndarray, fps: float) -> None:
    first, *others = map(Image.fromarray, pictures)
    options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, **options)


def _write_folder(path: Path, pictures: np.ndarray, fps: float) -> None:
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:05d}.png")


_WRITERS: dict[str, Callable[[Path, np.ndarray, float], None]] = {
    ".mp4": _write_mp4,
    ".webp": _write_animation,
    ".gif": _write_animation,
    "": _write_folder,
}
