"""Data sets of true clips, to generate from and to compare with: UCF101, MSR-VTT and the small world."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from torch import Tensor

from ..common.checks import InputError
from ..common.files import in_order
from ..common.json_files import read_object
from ..media.clip_files import VIDEOS
from ..media.decoding import read_window
from ..media.images import fit_image
from ..sprites import render, sample_clip, sentence
from ..sprites.scene import seeded

DATASETS = ("ucf101", "msrvtt")
SPRITES = "sprites"
_LARGEST_ANNOTATION = 256 * 2**20  # bytes; the published ones have up to 27 million


@dataclass(frozen=True)
class Selection:
    """Which frames of a video are taken: every `stride`-th from the first on, cropped to `height` x `width` pixels."""

    frames: int
    height: int
    width: int
    stride: int

    def read(self, path: Path) -> Tensor:
        """The frames of a video, (T, 3, H, W) in [-1, 1]. Raises `UnusableClip`, or OSError if the file is gone."""
        with path.open("rb") as file:
            return fit_image(read_window(file, 0, self.frames, self.stride), self.height, self.width, "crop")


@dataclass(frozen=True)
class TrueClip:
    """A clip of a data set; `read` gives its frames (T, 3, H, W) in [-1, 1], or raises `UnusableClip`."""

    name: str
    caption: str
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Dataset:
    """Clips in the order in which they are taken. `prompts` and `frames` describe their choice for a report."""

    clips: Iterator[TrueClip]
    prompts: str
    frames: str


def open_dataset(name: str, root: Path | None, selection: Selection, seed: int) -> Dataset:
    """The data set `name`, in an order that the seed decides. Raises `InputError` for a folder of another layout."""
    if name == SPRITES:
        return _sprites(selection, seed)
    if not root.is_dir():
        raise InputError(f"--dataset {name} is in {str(root)!r}, which is no folder; give the folder of the data set")
    return {"ucf101": _ucf101, "msrvtt": _msrvtt}[name](root, selection, seed)


def _describe_frames(selection: Selection) -> str:
    return f"every frame of number 0, {selection.stride}, {2 * selection.stride}, ... of each video; its first is the picture"


def _sprites(selection: Selection, seed: int) -> Dataset:
    def clip(index: int) -> TrueClip:
        scene = sample_clip(seeded("test", seed, index))
        return TrueClip(
            f"scene{index:05d}",
            sentence(scene),
            lambda: render(scene, num_frames=selection.frames, height=selection.height, width=selection.width),
        )

    return Dataset(map(clip, count()), "the small world's own sentences, test split", "rendered; the first is the picture")


def _ucf101(root: Path, selection: Selection, seed: int) -> Dataset:
    """ROOT/CLASS/v_CLASS_g01_c01.avi, or the same in the archive's own folder: ROOT/UCF-101/CLASS/..."""
    paths = in_order(root.glob("*/*.avi")) or in_order(root.glob("*/*/*.avi"))
    if not paths:
        raise InputError(
            f"--dataset ucf101 is in {str(root)!r}, which has no class folders of .avi files; give the folder UCF-101 as it is "
            "published (ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi)"
        )
    random.Random(seed).shuffle(paths)
    clips = (TrueClip(path.stem, _class_in_words(path.parent.name), lambda path=path: selection.read(path)) for path in paths)
    prompts = (
        "the class's name in words, such as 'apply eye makeup'; the paper takes the prompts of VidRD (arXiv 2309.03549), which "
        "are not published with it"
    )
    return Dataset(clips, prompts, _describe_frames(selection))


def _class_in_words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def _msrvtt(root: Path, selection: Selection, seed: int) -> Dataset:
    """Anywhere in ROOT, a .json with "videos" and "sentences", and the videos of its test split (video7010.mp4, ...)."""
    path, table = _annotation(root)
    captions: dict[str, list[str]] = {}
    try:
        test = sorted(video["video_id"] for video in table["videos"] if video["split"] == "test")
        for row in table["sentences"]:
            if row["caption"].strip():
                captions.setdefault(row["video_id"], []).append(row["caption"])
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{str(path)!r} is no annotation of MSR-VTT (it lacks {error}); get it again") from error
    files = {file.stem: file for file in sorted(root.rglob("video*")) if file.suffix.lower() in VIDEOS}
    missing = [name for name in test if name not in files or name not in captions]
    if not test or missing:
        lacking = f"lacks the files or captions of {len(missing)} of them, {missing[0]} for one" if missing else "has none"
        raise InputError(
            f"--dataset msrvtt is in {str(root)!r}: {path.name} names {len(test)} test videos and the folder {lacking}; give a "
            "folder with the test videos (video7010.mp4) and their annotation"
        )
    random.Random(seed).shuffle(test)
    # Each video has 20 captions. The choice depends on seed and name alone, so it stays the same for more clips.
    chosen = {name: random.Random(f"{seed} {name}").choice(captions[name]) for name in test}
    clips = (TrueClip(name, chosen[name], lambda path=files[name]: selection.read(path)) for name in test)
    prompts = f"one of each video's captions in {path.name}, test split, drawn by the seed"
    return Dataset(clips, prompts, _describe_frames(selection))


def _annotation(root: Path) -> tuple[Path, dict]:
    """The path and the content of MSR-VTT's annotation below `root`."""
    unreadable: list[InputError] = []
    for path in sorted(root.rglob("*.json")):
        try:
            table = read_object(path, "an annotation", _LARGEST_ANNOTATION)
        except InputError as error:  # another file may be the annotation
            unreadable.append(error)
            continue
        videos = table.get("videos") if "sentences" in table else None
        if isinstance(videos, list) and any(isinstance(v, dict) and v.get("split") == "test" for v in videos):
            return path, table
    if unreadable:
        raise unreadable[0]
    raise InputError(
        f'--dataset msrvtt is in {str(root)!r}, in which no .json has "videos" of the split test and "sentences"; give a '
        "folder with the published test_videodatainfo.json, or MSRVTT_data.json"
    )
