"""A window of frames out of a video file, through PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import av
import numpy as np
import torch
from torch import Tensor

from .images import from_uint8


@dataclass(frozen=True)
class Facts:
    """What a video's container says; `fps` is 0 where it does not."""

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
    """Count the frames of a video without decoding them; UnusableClip for what is no whole video."""
    file.seek(0)
    try:
        with av.open(file) as container:
            stream = video_stream(container)
            # The container's own count is missing in some formats and wrong in some files.
            frames = sum(bool(packet.size) and not packet.is_discard for packet in container.demux(stream))
            size = stream.codec_context
            return Facts(frames, float(stream.average_rate or 0), size.height, size.width)
    except av.FFmpegError as error:
        raise UnusableClip(f"broken: {error.strerror}") from error


def read_window(file: BinaryIO, start: int, count: int, stride: int) -> Tensor:
    """Every `stride`-th frame from `start` on, `count` in all, upright: (T, 3, H, W) in [-1, 1]."""
    wanted = range(start, start + (count - 1) * stride + 1, stride)
    file.seek(0)
    pictures = []
    try:
        with av.open(file) as container:
            for number, frame in enumerate(container.decode(video_stream(container))):
                if number in wanted:
                    pictures.append(upright(frame))
                if len(pictures) == count:
                    break
    except av.FFmpegError as error:
        raise UnusableClip(f"broken: {error.strerror}") from error
    if len(pictures) < count:
        raise UnusableClip(f"broken: it ends before frame {wanted[len(pictures)]}")
    return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))


def video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream; UnusableClip where there is none."""
    if not container.streams.video:
        raise UnusableClip("broken: there is no video in it")
    return container.streams.video[0]


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as (H, W, 3) bytes, turned as its file asks for: telephones film lying."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
