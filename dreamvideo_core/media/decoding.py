"""Videos in, through PyAV: frames as a player shows them."""

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

from . import h273, tone_mapping
from .images import from_uint8, to_rgb

_WIDEST_PIXEL = 8  # how much wider than high, or the other way round
_DECODERS_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MOST_PIXELS = 2**28  # of a frame: more is damage, or meant to fill the memory


@dataclass(frozen=True)
class Facts:
    """What a video's container says, with the size at which it is shown; `fps` is 0 where it does not."""

    frames: int
    fps: float
    height: int
    width: int


class UnusableClip(Exception):
    """A video that cannot be trained on; the message says why. `facts` are there where its container could be read."""

    def __init__(self, why: str, facts: Facts | None = None):
        super().__init__(why)
        self.facts = facts


def read_facts(file: BinaryIO) -> Facts:
    """Count the frames of a video and decode the first; UnusableClip for what is no whole video."""
    file.seek(0)
    with _opened(file) as (container, stream):
        first, frames = None, 0
        decode = _decoder(stream)
        for packet in container.demux(stream):
            # The container's own count is missing in some formats and wrong in some files.
            frames += bool(packet.size) and not packet.is_discard
            if first is None:
                first = next(iter(decode(packet)), None)
        if first is None:
            raise UnusableClip("broken: no frame of it can be decoded")
        height, width = _Look(stream).shown(first).shape[:2]
        return Facts(frames, float(stream.average_rate or 0), height, width)


def read_window(file: BinaryIO, start: int, count: int, stride: int) -> Tensor:
    """Every `stride`-th frame from `start` on, `count` in all, as shown: (T, 3, H, W) in [-1, 1]."""
    wanted = range(start, start + (count - 1) * stride + 1, stride)
    file.seek(0)
    pictures = []
    with _opened(file) as (container, stream):
        look = _Look(stream)
        for number, frame in enumerate(_progressive(_decoded(container, stream), stream)):
            if number in wanted:
                pictures.append(look.shown(frame))
            if len(pictures) == count:
                break
    if len(pictures) < count:
        raise UnusableClip(f"broken: it ends before frame {wanted[len(pictures)]}")
    if len({picture.shape for picture in pictures}) > 1:
        raise UnusableClip("its frames have different sizes")
    return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def read_frames(path: Path, most: int | None = None) -> tuple[list[np.ndarray], float]:
    """The frames of a video as shown, or the first `most`, each (H, W, 3) bytes; and frames per second, 0 where it is unknown.

    UnusableClip for what is no video.
    """
    with _opened(path) as (container, stream):
        look, pictures = _Look(stream), []
        for frame in _progressive(_decoded(container, stream), stream):
            pictures.append(look.shown(frame))
            if len(pictures) == most:
                break
        return pictures, float(stream.average_rate or 0)


@contextmanager
def _opened(source: BinaryIO | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A container and its first video stream; what FFmpeg says of it becomes UnusableClip."""
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
        if error.errno != errno.EINVAL:  # a disk that fails, or the like
            raise
        raise UnusableClip("broken: it points to a place before its own beginning") from error


def _decoded(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    decode = _decoder(stream)
    for packet in container.demux(stream):
        yield from decode(packet)


def _decoder(stream: av.VideoStream) -> Callable[[av.Packet], list[av.VideoFrame]]:
    """What decodes the stream's packets, with transparency where it has that: FFmpeg's own decoders leave out WebM's."""
    with_alpha = _DECODERS_WITH_ALPHA.get(stream.codec_context.name)
    if with_alpha is None or stream.metadata.get("alpha_mode") != "1":
        return av.Packet.decode
    if with_alpha not in av.codecs_available:
        raise UnusableClip(f"it is transparent, and there is no {with_alpha} to decode that")
    return av.CodecContext.create(with_alpha, "r").decode


def _progressive(frames: Iterator[av.VideoFrame], stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """The frames, and in place of interlaced ones whole ones; as many as before."""
    graph = None
    for frame in frames:
        if graph is None and frame.interlaced_frame:
            graph = av.filter.Graph()
            size = {"width": frame.width, "height": frame.height}
            source = graph.add_buffer(**size, format=frame.format, time_base=stream.time_base)
            whole = graph.add("bwdif", "mode=send_frame:deint=interlaced")
            graph.link_nodes(source, whole, graph.add("buffersink")).configure()
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


class _Look:
    """How the frames of a stream are shown: what its container and its codec say of colours, pixels and the way up."""

    def __init__(self, stream: av.VideoStream):
        self.stream, self.context = stream, stream.codec_context

    def shown(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) bytes of sRGB."""
        return _upright(self._rgb(frame), frame)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        transfer, primaries = self.context.color_trc, self.context.color_primaries
        if transfer in tone_mapping.HDR or primaries in tone_mapping.WIDE:
            signal = torch.from_numpy(self._converted(frame, "rgb48le").astype(np.float32)) / 65535
            return (tone_mapping.to_srgb(signal, transfer, primaries) * 255).round().byte().numpy()
        if any(component.is_alpha for component in frame.format.components):
            return np.array(to_rgb(Image.fromarray(self._converted(frame, "rgba"))))
        # From more than 8 bits, white is 253 in rgb24 and 255 in gbrp.
        return self._converted(frame, "gbrp" if frame.format.components[0].bits > 8 else "rgb24")

    def _converted(self, frame: av.VideoFrame, kind: str) -> np.ndarray:
        matrix = self._matrix(frame)
        converted = frame.reformat(
            width=self._width(frame),
            format=kind,
            src_colorspace=matrix,
            # Of no meaning for RGB, but PyAV before 17 heeds the source's matrix only where the two differ.
            dst_colorspace=h273.SWSCALE[h273.BT601 if matrix == h273.BT709 else h273.BT709],
            src_color_range=self._range(frame),
            dst_color_range=h273.FULL,
        )
        return converted.to_ndarray()

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
        return h273.LIMITED if len(frame.format.components) > 2 else None  # FFmpeg knows what grey is

    def _width(self, frame: av.VideoFrame) -> int:
        """At which pixels are square."""
        wider = self.stream.sample_aspect_ratio or 1
        if not 1 / _WIDEST_PIXEL <= wider <= _WIDEST_PIXEL:
            raise UnusableClip(f"its pixels are {float(wider):.3g} times as wide as high")
        return max(1, round(frame.width * wider))


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turned and mirrored as the frame's display matrix asks for: telephones film lying, and front cameras mirrored."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return picture
    # Where a step to the right and a step down go: (right, down) of each.
    (right_right, right_down), (down_right, down_down) = matrix
    if abs(right_right) + abs(down_down) < abs(right_down) + abs(down_right):
        picture, right_right, down_down = picture.transpose(1, 0, 2), down_right, right_down
    return picture[:: -1 if down_down < 0 else 1, :: -1 if right_right < 0 else 1]


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The part of it that turns and mirrors, (2, 2)."""
    found = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    return None if found is None else np.frombuffer(bytes(found), np.int32).astype(np.int64).reshape(3, 3)[:2, :2]
