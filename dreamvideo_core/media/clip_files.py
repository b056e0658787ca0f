"""Reading clips of any model: video files, animated pictures, or folders of PNGs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath

import numpy as np
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ..common.checks import InputError
from .decoding import read_frames
from .images import from_uint8, to_rgb

ANIMATIONS = (".webp", ".gif")
VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")


@dataclass(frozen=True)
class ClipFrames:
    """Frames (T, 3, H, W) in [-1, 1], and for how many milliseconds each is shown."""

    frames: Tensor
    milliseconds: list[int]


def clip_name(file_name: str) -> str:
    """A clip's name: that of its file without the ending, or of its folder."""
    path = PurePath(file_name)
    return path.stem if path.suffix.lower() in VIDEOS + ANIMATIONS else path.name


def find_clips(folder: str | Path, name: str = "folder") -> dict[str, Path]:
    """The clips in a folder by `clip_name`, sorted. `name` is the input that names the folder, for messages.

    A clip is a video file, an animated .webp or .gif, or a folder of PNGs. Raises `InputError` if there is no clip, or if two
    have the same name.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{name} is {str(folder)!r}, which is no folder; give a folder of clips")
    found: dict[str, Path] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(".") or not _is_clip(path):
            continue
        clip = path.name if path.is_dir() else clip_name(path.name)
        if clip in found:
            raise InputError(f"{name} {str(folder)!r} has {found[clip].name} and {path.name}, two clips of one name; keep one")
        found[clip] = path
    if not found:
        endings = ", ".join(VIDEOS + ANIMATIONS)
        raise InputError(f"{name} is {str(folder)!r}, in which there is no clip; allowed: {endings}, and folders of PNGs")
    return found


def read_clip(path: Path, fps: float, most: int | None = None) -> ClipFrames:
    """A clip that `find_clips` found, or its first `most` frames; `fps` serves clips that do not say theirs.

    Raises `InputError` for a file that cannot be read, and for pictures of different sizes.
    """
    try:
        pictures, milliseconds = _reader(path)(path, most)
    except Exception as error:  # Pillow's readers raise anything for damaged files
        raise InputError(f"{str(path)!r} is no readable clip ({error}); make it again, or take it out of the folder") from error
    if len({picture.shape for picture in pictures}) != 1:
        raise InputError(
            f"{str(path)!r} has no frames, or frames of different sizes; make it again, or take it out of the folder"
        )
    frames = from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    return ClipFrames(frames, [round(duration or 1000 / fps) for duration in milliseconds])


def frame_files(folder: Path) -> list[Path]:
    """The PNGs of a folder, sorted by the numbers in their names: 2.png before 10.png."""
    return sorted(folder.glob("*.png"), key=_by_numbers)


def _by_numbers(path: Path) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def _is_clip(path: Path) -> bool:
    return any(path.glob("*.png")) if path.is_dir() else path.suffix.lower() in VIDEOS + ANIMATIONS


def _reader(path: Path) -> Callable[[Path, int | None], tuple[list[np.ndarray], list[float]]]:
    """What reads a path's first frames, (H, W, 3) bytes each, and their milliseconds: 0 where these are unknown."""
    if path.is_dir():
        return _read_folder
    return _read_animation if path.suffix.lower() in ANIMATIONS else _read_video


def _read_folder(path: Path, most: int | None) -> tuple[list[np.ndarray], list[float]]:
    pictures = []
    for file in frame_files(path)[:most]:
        with Image.open(file) as picture:
            pictures.append(np.array(to_rgb(picture)))
    return pictures, [0.0] * len(pictures)


def _read_animation(path: Path, most: int | None) -> tuple[list[np.ndarray], list[float]]:
    with Image.open(path) as picture:
        frames = islice(ImageSequence.Iterator(picture), most)
        # Pillow sets a frame's duration when it decodes the frame, so the pixels come first.
        read = [(np.array(to_rgb(frame)), frame.info.get("duration", 0.0)) for frame in frames]
    return [frame for frame, _ in read], [duration for _, duration in read]


def _read_video(path: Path, most: int | None) -> tuple[list[np.ndarray], list[float]]:
    pictures, fps = read_frames(path, most)
    return pictures, [1000 / fps if fps else 0.0] * len(pictures)
