"""Inspecting a user's videos before training, at the very windows that training would see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...media.decoding import UnusableClip, VideoInfo
from .videos import VideoSource

STATIC_BELOW = 1.0  # `motion` of a window in which nothing moves
CUT_ABOVE = 0.35  # `jump` at a scene cut; motion keeps most shades from one frame to the next
_SHADES = 16


@dataclass(frozen=True)
class Finding:
    """One window of a clip: why it cannot be used, or else how it moves."""

    name: str  # of the clip
    caption: str
    info: VideoInfo | None  # None if the file cannot be read
    unusable: str = ""  # the reason
    start: int = 0  # the window's first frame
    motion: float = 0.0
    jump: float = 0.0
    window: Tensor | None = None  # (T, 3, H, W), if it was asked for

    @property
    def is_static(self) -> bool:
        return not self.unusable and self.motion < STATIC_BELOW

    @property
    def has_cut(self) -> bool:
        return self.jump > CUT_ABOVE


def survey(source: VideoSource, keep: Collection[int] = (), on_window: Callable[[], None] = lambda: None) -> list[Finding]:
    """Inspect every window; findings of the numbers in `keep` hold their frames. Raises OSError if a file is gone."""
    findings = []
    for number in range(len(source)):
        findings.append(_inspect(source, number, number in keep))
        on_window()
    return findings


def _inspect(source: VideoSource, number: int, keep: bool) -> Finding:
    file = source.files[source.file_of(number)]
    try:
        window = source.window(number)
    except UnusableClip as why:
        return Finding(file.name, file.caption, why.info, str(why))
    frames = window.frames
    moves = {"motion": motion(frames), "jump": jump(frames)}
    return Finding(file.name, file.caption, window.info, "", window.start, **moves, window=frames if keep else None)


def motion(window: Tensor) -> float:
    """The largest mean change from a window's first frame to any other, in levels of 255; (T, 3, H, W) in [-1, 1]."""
    return float((window - window[:1]).abs().mean((1, 2, 3)).max() * 127.5)


def jump(window: Tensor) -> float:
    """The largest change between neighbouring frames' histograms of shades: a share of pixels, 0 to 1, mean over channels."""
    shades = ((window + 1) / 2 * _SHADES).long().clamp(0, _SHADES - 1).flatten(2)
    histograms = F.one_hot(shades, _SHADES).float().mean(2)
    changes = histograms.diff(dim=0).abs().sum(-1).mean(-1) / 2
    return float(changes.max()) if len(changes) else 0.0
