"""Decoding videos with PyAV, into frames as a player shows them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import av.filter
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..common.checks import InputError
from . import h273, tone_mapping
from .images import from_uint8, to_rgb

_WIDEST_PIXEL = 8  # pixel aspect ratios beyond this, either way, are damage
_DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MOST_PIXELS = 2**28  # of a frame: a larger one is damage, or meant to fill the memory


@dataclass(frozen=True)
class VideoInfo:
    """Number of frames, and height and width as shown, in pixels; `fps` is 0 if the container does not say it."""

    frames: int
    fps: float
    height: int
    width: int


class UnusableClip(InputError):
    """A video that cannot be used; the message says why. `info` is there if the container could be read."""

    def __init__(self, why: str, info: VideoInfo | None = None):
        super().__init__(why)
        self.info = info


def read_info(file: BinaryIO) -> VideoInfo:
    """Count a video's frames and decode the first; raises `UnusableClip` for what is no whole video."""
    file.seek(0)
    with _opened(file) as (container, stream):
        first, frames = None, 0
        decode = _decoder(stream)
        for packet in container.demux(stream):
            # Packets are counted: the container's own count is missing in some formats and wrong in some files.
            frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(iter(decode(packet)), None)
        if first is None:
            raise UnusableClip("broken: no frame of it can be decoded")
        height, width = _FrameConverter(stream).to_rgb(first).shape[:2]
        return VideoInfo(frames, float(stream.average_rate or 0), height, width)


def read_window(file: BinaryIO, start: int, count: int, stride: int) -> Tensor:
    """`count` frames, every `stride`-th from `start` on: (T, 3, H, W) in [-1, 1]. Raises `UnusableClip`."""
    wanted = range(start, start + (count - 1) * stride + 1, stride)
    file.seek(0)
    pictures = []
    with _opened(file) as (container, stream):
        converter = _FrameConverter(stream)
        for number, frame in enumerate(_progressive(_decoded(container, stream), stream)):
            if number in wanted:
                pictures.append(converter.to_rgb(frame))
            if len(pictures) == count:
                break
    if len(pictures) < count:
        raise UnusableClip(f"broken: it ends before frame {wanted[len(pictures)]}")
    if len({picture.shape for picture in pictures}) > 1:
        raise UnusableClip("its frames have different sizes")
    return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def read_frames(path: Path, most: int | None = None) -> tuple[list[np.ndarray], float]:
    """A video's frames, or its first `most`, each (H, W, 3) bytes of sRGB; and frames per second, 0 where unknown.

    Raises `UnusableClip` for what is no video.
    """
    with _opened(path) as (container, stream):
        converter, pictures = _FrameConverter(stream), []
        for frame in _progressive(_decoded(container, stream), stream):
            pictures.append(converter.to_rgb(frame))
            if len(pictures) == most:
                break
        return pictures, float(stream.average_rate or 0)


@contextmanager
def _opened(source: BinaryIO | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A container and its first video stream; FFmpeg's errors become `UnusableClip`."""
    try:
        with av.open(str(source) if isinstance(source, Path) else source, metadata_errors="replace") as container:
            if not container.streams.video:
                raise UnusableClip("broken: there is no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnusableClip("there is no decoder for its video")
            if stream.codec_context.width * stream.codec_context.height > _MOST_PIXELS:
                raise UnusableClip(f"its frames have more than {_MOST_PIXELS:,} pixels")
            yield container, stream
    except av.FFmpegError as error:
        raise UnusableClip(f"broken: {error.strerror}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # such as a disk that fails: no fault of the file
            raise
        raise UnusableClip("broken: it points to a place before its own beginning") from error


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    decode = _decoder(stream)
    for packet in container.demux(stream):
        yield from decode(packet)


def _decoder(stream: av.VideoStream) -> Callable[[av.Packet], list[av.VideoFrame]]:
    """Decodes the stream's packets. A transparent WebM needs libvpx: FFmpeg's own decoders drop its alpha channel."""
    with_alpha = _DECODERS_WITH_ALPHA.get(stream.codec_context.name)
    if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
        return av.Packet.decode
    if with_alpha not in av.codecs_available:
        raise UnusableClip(f"it is transparent, and there is no {with_alpha} to decode that")
    return av.CodecContext.create(with_alpha, "r").decode


def _progressive(frames: Iterator[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames, deinterlaced from the first interlaced one on; their number stays the same."""
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            size = {"width": frame.width, "height": frame.height}
            source = graph.add_buffer(**size, format=frame.format, time_base=stream.time_base)
            deinterlaced = graph.add("bwdif", "mode=send_frame:deint=interlaced")
            graph.link_nodes(source, deinterlaced, graph.add("buffersink")).configure()
        if graph is None:
            yield frame
        else:
            graph.push(frame)
            yield from _ready(graph)
    if graph is not None:
        graph.push(None)
        yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    try:
        while True:
            yield graph.pull()
    except (av.BlockingIOError, av.EOFError):  # it waits for the next frame, or has given the last
        return


class _FrameConverter:
    """Converts a stream's frames to sRGB by the colours, the pixel aspect ratio and the rotation that the file declares."""

    def __init__(self, stream: av.VideoStream):
        self.stream, self.context = stream, stream.codec_context

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) bytes of sRGB, upright, with square pixels."""
        return _upright(self._colours(frame), frame)

    def _colours(self, frame: av.VideoFrame) -> np.ndarray:
        transfer, primaries = self.context.color_trc, self.context.color_primaries
        if transfer in tone_mapping.HDR or primaries in tone_mapping.WIDE:
            signal = torch.from_numpy(self._reformatted(frame, "rgb48le").astype(np.float32)) / 65535
            return (tone_mapping.to_srgb(signal, transfer, primaries) * 255).round().byte().numpy()
        if any(component.is_alpha for component in frame.format.components):
            return np.array(to_rgb(Image.fromarray(self._reformatted(frame, "rgba"))))
        # swscale turns white of more than 8 bits into 253 with rgb24, and into 255 with gbrp.
        return self._reformatted(frame, "gbrp" if frame.format.components[0].bits > 8 else "rgb24")

    def _reformatted(self, frame: av.VideoFrame, pixel_format: str) -> np.ndarray:
        matrix = self._matrix(frame)
        reformatted = frame.reformat(
            width=self._width(frame),
            format=pixel_format,
            src_colorspace=matrix,
            # RGB has no matrix, but PyAV before 17 ignores the source's unless the two differ.
            dst_colorspace=h273.SWSCALE[h273.BT601 if matrix == h273.BT709 else h273.BT709],
            src_color_range=self._range(frame),
            dst_color_range=h273.FULL,
        )
        return reformatted.to_ndarray()

    def _matrix(self, frame: av.VideoFrame) -> int:
        tagged = self.context.colorspace
        if tagged in (h273.RGB, h273.UNTAGGED):
            is_2020 = self.context.color_trc in tone_mapping.HDR or self.context.color_primaries == h273.BT2020
            tagged = h273.BT2020 if is_2020 else h273.matrix_of_size(frame.height)
        if tagged not in h273.SWSCALE:
            raise UnusableClip(f"its colours are coded by matrix {tagged} of ITU-T H.273, which cannot be read")
        return h273.SWSCALE[tagged]

    def _range(self, frame: av.VideoFrame) -> int | None:
        tagged = self.context.color_range
        if tagged in (h273.LIMITED, h273.FULL):
            return tagged
        if frame.format.name.startswith("yuvj"):
            return h273.FULL
        return h273.LIMITED if len(frame.format.components) > 2 else None  # FFmpeg has the right default for grey

    def _width(self, frame: av.VideoFrame) -> int:
        """The width that makes pixels square."""
        wider = self.stream.sample_aspect_ratio or 1
        if not 1 / _WIDEST_PIXEL <= wider <= _WIDEST_PIXEL:
            raise UnusableClip(f"its pixels are {float(wider):.3g} times as wide as high")
        return max(1, round(frame.width * wider))


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Rotated and mirrored as the frame's display matrix says: phones store clips lying, front cameras mirrored."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return picture
    # Row 1: how far (right, down) one stored pixel to the right goes on the screen. Row 2: the same for one down.
    (right_right, right_down), (down_right, down_down) = matrix
    if abs(right_right) + abs(down_down) < abs(right_down) + abs(down_right):
        picture, right_right, down_down = picture.transpose(1, 0, 2), down_right, right_down
    return picture[:: -1 if down_down < 0 else 1, :: -1 if right_right < 0 else 1]


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """Its part that rotates and mirrors, (2, 2)."""
    found = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return None if found is None else np.frombuffer(bytes(found), np.int32).astype(np.int64).reshape(3, 3)[:2, :2]
