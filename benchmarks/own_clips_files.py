"""Scenes of the small world as the video files that a user might have: good ones, and some of every odd kind."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dreamvideo_core.media.video import save_clip
from dreamvideo_core.sprites import ACTIONS, Clip, render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

ODD = 3  # of each kind
_LENGTHS = 9, 16  # frames of a good clip; at the sprites' speed a longer one would lose them
_TOO_SHORT = 4
_SIZES = ((64, 64), (72, 96), (96, 72), (96, 96))  # height, width
_RATES = (8, 12, 24)
_MOVING = [action for action in ACTIONS if action != "still"]


@dataclass(frozen=True)
class Written:
    """How many clips of each sort, and the frames of the shortest and the longest good one."""

    good: int
    odd: int
    shortest: int
    longest: int


def write_files(folder: Path, count: int, seed: int) -> Written:
    """`count` good clips with captions, and beside them still, short, cut-off and empty-headed ones."""
    folder.mkdir(parents=True)
    lengths = [_write_moving(folder / f"clip{number:04d}.mp4", seed, number) for number in range(count)]
    for number in range(ODD):
        rng = seeded("train", seed, count + number)
        clip = sample_clip(rng)
        _write(folder / f"still{number}.mp4", replace(clip, action="still"), _LENGTHS[0], rng)
        _write(folder / f"short{number}.mp4", clip, _TOO_SHORT, rng)
        good = (folder / f"clip{number:04d}.mp4").read_bytes()
        (folder / f"broken{number}.mp4").write_bytes(good[: len(good) // 2] if number else b"no video" * 64)
    return Written(count, 3 * ODD, min(lengths), max(lengths))


def _write_moving(path: Path, seed: int, number: int) -> int:
    rng = seeded("train", seed, number)
    clip = replace(sample_clip(rng), action=str(rng.choice(_MOVING)))
    length = int(rng.integers(_LENGTHS[0], _LENGTHS[1] + 1))
    _write(path, clip, length, rng)
    return length


def _write(path: Path, clip: Clip, frames: int, rng: np.random.Generator) -> None:
    height, width = _SIZES[rng.integers(len(_SIZES))]
    pixels = render_batch([clip], num_frames=frames, height=height, width=width)[0]
    save_clip(path, pixels, fps=int(rng.choice(_RATES)))
    path.with_suffix(".txt").write_text(sentence(clip, rng) + "\n", encoding="utf-8")
