"""A look at a user's videos before an hour is spent on them: at the very windows that training would see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ...media.decoding import Facts, UnusableClip
from .videos import VideoSource

# The mean change, in levels of 255, from a window's first frame to its most different one: below it nothing moves.
STATIC_BELOW = 1.0
# The share of pixels that change their shade from one frame to the next: a motion keeps most, a cut does not.
CUT_ABOVE = 0.35
_SHADES = 16


@dataclass(frozen=True)
class Finding:
    """One window of a clip: what the container says, where it could be read, why it cannot be used, or how it moves."""

    name: str  # of the clip
    caption: str
    facts: Facts | None
    unusable: str = ""
    start: int = 0  # the frame that the window begins with
    motion: float = 0.0
    jump: float = 0.0
    window: Tensor | None = None  # (T, 3, H, W), kept where it was asked for

    @property
    def is_static(self) -> bool:
        return not self.unusable and self.motion < STATIC_BELOW

    @property
    def has_cut(self) -> bool:
        return self.jump > CUT_ABOVE


def survey(source: VideoSource, keep: Collection[int] = (), on_window: Callable[[], None] = lambda: None) -> list[Finding]:
    """Look at every window; the frames of those in `keep` are kept. OSError when a file is gone."""
    findings = []
    for number in range(len(source)):
        findings.append(_look(source, number, number in keep))
        on_window()
    return findings


def _look(source: VideoSource, number: int, keep: bool) -> Finding:
    file = source.files[source.file_of(number)]
    try:
        window = source.window(number)
    except UnusableClip as why:
        return Finding(file.name, file.caption, why.facts, str(why))
    frames = window.frames
    moves = {"motion": motion(frames), "jump": jump(frames)}
    return Finding(file.name, file.caption, window.facts, "", window.start, **moves, window=frames if keep else None)


def motion(window: Tensor) -> float:
    """How far a window (T, 3, H, W) in [-1, 1] gets from its first frame: the largest mean change, in levels of 255."""
    return float((window - window[:1]).abs().mean((1, 2, 3)).max() * 127.5)


def jump(window: Tensor) -> float:
    """The largest share of a frame's pixels, 0 to 1, that have another shade in the next frame, mean over the channels."""
    shades = ((window + 1) / 2 * _SHADES).long().clamp(0, _SHADES - 1).flatten(2)
    histograms = F.one_hot(shades, _SHADES).float().mean(2)
    changes = histograms.diff(dim=0).abs().sum(-1).mean(-1) / 2
    return float(changes.max()) if len(changes) else 0.0
