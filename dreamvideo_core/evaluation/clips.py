"""Folders of clips to compare: paired by name, checked before anything is measured, and read at one size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..common.checks import InputError
from ..media.clip_files import VIDEOS, find_clips, frame_files, read_clip
from ..media.decoding import read_info
from ..media.images import fit_image
from .similarity import LEAST_SIDE

REFERENCE = "reference"  # the label of the true clips
_NAMED = 3  # clips that a message names at most
ANY_FPS = 8.0  # for clips that do not say theirs: no measure depends on it


@dataclass(frozen=True)
class ClipShape:
    """The number of frames and the size in pixels at which clips are measured."""

    frames: int
    height: int
    width: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.frames, self.height, self.width

    def __str__(self) -> str:
        return f"{self.frames} frames of {self.width} x {self.height}"


@dataclass(frozen=True)
class ClipSet:
    """The clips of one model, or the true ones: paths by the clip's name."""

    label: str
    paths: Mapping[str, Path]


def open_sets(folders: Sequence[Path], option: str) -> list[ClipSet]:
    """A set for each folder, labelled by the folder's name, or by its path if names are not unique.

    Raises `InputError` for a folder without clips, and for one that is given twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError(f"{option} names one folder twice; give each once")
    names = [folder.resolve().name for folder in folders]
    unique = len({*names, REFERENCE}) > len(names)
    labels = names if unique else [str(folder) for folder in folders]
    return [ClipSet(label, find_clips(folder, option)) for label, folder in zip(labels, folders, strict=True)]


def check_pairs(named: Mapping[str, Iterable[str]]) -> list[str]:
    """The sorted names of the clips. Raises `InputError` unless all collections in `named` have the same ones."""
    clips = sorted(set().union(*named.values()))
    for what, names in named.items():
        missing = sorted(set(clips) - set(names))
        if missing:
            listed = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            others = " and ".join(other for other in named if other != what)
            raise InputError(
                f"{what} lacks {len(missing)} of the {len(clips)} clips of {others}: {listed}. Every clip needs one entry "
                "of its name in each; add what is missing, or take the rest out"
            )
    return clips


def common_shape(sets: Sequence[ClipSet], frames: int | None, size: int | None) -> ClipShape:
    """The shape at which all clips can be measured; of each file at most one frame is decoded.

    `frames` takes so many of every clip's first frames, and `size` its middle square at so many pixels. Without them, all
    clips must be equal. Raises `InputError` if they are not, or for a clip that is broken, too short, or too small for SSIM.
    """
    shapes = {path: _shape(path) for clips in sets for path in clips.paths.values()}
    first, least = next(iter(shapes)), min(shapes, key=lambda path: shapes[path].frames)
    if frames is not None and shapes[least].frames < frames:
        raise InputError(
            f"--frames is {frames}, but {str(least)!r} has {shapes[least].frames}; allowed: up to the shortest clip's, or take "
            "the short clips out"
        )
    for path, shape in shapes.items():
        if frames is None and shape.frames != shapes[first].frames:
            raise InputError(
                f"{str(first)!r} has {shapes[first].frames} frames, {str(path)!r} has {shape.frames}; give --frames "
                f"{shapes[least].frames} to take the first ones of each, or clips of one length"
            )
        if size is None and (shape.height, shape.width) != (shapes[first].height, shapes[first].width):
            raise InputError(
                f"{str(first)!r} is {shapes[first].width} x {shapes[first].height} pixels, {str(path)!r} is {shape.width} x "
                f"{shape.height}; give --size to bring every clip's middle square to one size, or clips of one size"
            )
    found = ClipShape(frames or shapes[first].frames, size or shapes[first].height, size or shapes[first].width)
    if min(found.height, found.width) < LEAST_SIDE:
        raise InputError(f"the clips are {found.width} x {found.height} pixels; allowed: {LEAST_SIDE} x {LEAST_SIDE} or more")
    return found


def read_clip_at(path: Path, shape: ClipShape) -> Tensor:
    """A clip's first frames, cropped to `shape`: (T, 3, H, W) in [-1, 1]. Raises `InputError`."""
    frames = read_clip(path, ANY_FPS, shape.frames).frames
    if len(frames) < shape.frames:  # the file has fewer than its header says
        raise InputError(f"{str(path)!r} ends after {len(frames)} of {shape.frames} frames; make it again, or take it out")
    return fit_image(frames, shape.height, shape.width, "crop")


def _shape(path: Path) -> ClipShape:
    try:
        if path.is_dir():
            pictures = frame_files(path)
            with Image.open(pictures[0]) as picture:
                return ClipShape(len(pictures), picture.height, picture.width)
        if path.suffix.lower() not in VIDEOS:
            with Image.open(path) as picture:
                return ClipShape(picture.n_frames, picture.height, picture.width)
        with path.open("rb") as file:
            info = read_info(file)
            return ClipShape(info.frames, info.height, info.width)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{str(path)!r} is no readable clip ({error}); make it again, or take it out of the folder") from error
