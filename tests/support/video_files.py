"""Video files as other programs and cameras write them: any codec, format of pixels, tags of colour and display matrix."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

ONE, HALF_TURN = 1 << 16, 1 << 30  # fixed point of a display matrix: of its turning part and of its last number


def write_video(
    path: Path,
    pictures: np.ndarray,
    codec: str = "libx264",
    kind: str = "yuv420p",
    *,
    matrix: int | None = None,
    full: bool = False,
    tags: Mapping[str, int] | None = None,
    options: Mapping[str, str] | None = None,
    pixel: Fraction = Fraction(1),
) -> Path:
    """Pictures (T, H, W, 3) of bytes, or of 16 bits: RGB as `matrix` (swscale's code) says, tagged with `tags` alone."""
    source = "rgb48le" if pictures.dtype == np.uint16 else "rgb24"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=8, options=dict(options or {}))
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], kind
        stream.codec_context.sample_aspect_ratio = pixel
        _tag(stream.codec_context, tags or {})
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format=source)
            colours = {} if matrix is None else {"dst_colorspace": matrix, "dst_color_range": 2 if full else 1}
            container.mux(stream.encode(frame.reformat(format=kind, **colours)))
        container.mux(stream.encode())
    return path


def _tag(context: VideoCodecContext, tags: Mapping[str, int]) -> None:
    for name, code in tags.items():
        setattr(context, name, code)


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Give an .mp4 the display matrix ((a, b), (c, d)): where a step to the right and a step down go."""
    written = path.read_bytes()
    place = written.index(b"tkhd") + 44  # of the track header
    matrix = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, HALF_TURN)
    path.write_bytes(written[:place] + matrix + written[place + len(matrix) :])
    return path


def tags_of(path: Path) -> dict[str, int]:
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        names = ("colorspace", "color_primaries", "color_trc", "color_range")
        return {name: getattr(context, name) for name in names}
