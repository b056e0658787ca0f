"""The paper's metrics of any model's clips: FVD, IS, CLIP-SIM, FFF_CLIP and FFF_SSIM, every set by the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..common.checks import InputError
from .clip_scores import ClipScorer
from .clips import REFERENCE, ClipSet, Shape, read_shaped
from .distribution import LEAST_CLIPS, frechet_distance, inception_score
from .metrics import first_frame_ssim
from .networks import VideoNetwork
from .similarity import embedding_similarity, frame_ssim, one_a_frame

METRICS = ("fvd", "is", "clipsim", "fff_clip", "fff_ssim")
NEED_REFERENCE = ("fvd", "fff_clip", "fff_ssim")
NEED_CAPTIONS = ("clipsim",)
NEED_CLIP = ("clipsim", "fff_clip")
# What is drawn over the frames, by the metric that asks for it.
CURVES = {"fff_ssim": "SSIM of each frame to the picture", "clipsim": "CLIP similarity of each frame to the caption"}


@dataclass(frozen=True)
class Judges:
    """What looks at clips besides SSIM; what no metric needs is None."""

    fvd: VideoNetwork | None = None
    inception: VideoNetwork | None = None
    clip: ClipScorer | None = None


@dataclass(frozen=True)
class Comparison:
    """What is compared: sets of clips of the same `names`, measured at `shape` by some of `METRICS`."""

    sets: Sequence[ClipSet]
    names: Sequence[str]
    shape: Shape
    metrics: Sequence[str]
    reference: ClipSet | None = None
    captions: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Row:
    """What was found of one set: a value of the whole set, values of each clip, and their mean at each frame."""

    label: str
    of_set: dict[str, float]
    of_clips: dict[str, list[float]]
    curves: dict[str, list[float]]


def compare(comparison: Comparison, judges: Judges, on_clip: Callable[[int], None] = lambda done: None) -> list[Row]:
    """A row for every set, and one for the true clips where there are any; `on_clip` hears how many clips are done.

    Every clip is decoded once. Raises `InputError` for a clip that cannot be read; `check_count` says how many FVD needs.
    """
    reference = _Gathered(comparison, judges) if comparison.reference else None
    gathered = [_Gathered(comparison, judges) for _ in comparison.sets]
    for number, name in enumerate(comparison.names):
        caption = None if "clipsim" not in comparison.metrics else judges.clip.read(comparison.captions[name])
        true = None
        if reference:
            true = reference.look(read_shaped(comparison.reference.paths[name], comparison.shape))
            reference.add(true, caption, None)
        for index, (clips, found) in enumerate(zip(comparison.sets, gathered, strict=True)):
            found.add(found.look(read_shaped(clips.paths[name], comparison.shape)), caption, true)
            on_clip(number * len(gathered) + index + 1)
    rows = [found.row(clips.label, reference) for clips, found in zip(comparison.sets, gathered, strict=True)]
    return [*rows, reference.row(REFERENCE, None)] if reference else rows


def check_count(metrics: Sequence[str], clips: int) -> None:
    """There are enough clips for what is measured, or `InputError`."""
    if "fvd" in metrics and clips < LEAST_CLIPS:
        raise InputError(f"fvd is asked of {clips} clip; allowed: {LEAST_CLIPS} or more, and thousands to be compared")


@dataclass(frozen=True)
class _Seen:
    """One clip (T, 3, H, W) and what the judges say of it."""

    frames: Tensor
    embeddings: Tensor | None


class _Gathered:
    """What is known of a set so far."""

    def __init__(self, comparison: Comparison, judges: Judges):
        self.metrics, self.judges = comparison.metrics, judges
        self.features: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.of_clips: dict[str, list[float]] = {}
        self.over_frames: dict[str, list[Tensor]] = {}

    def look(self, frames: Tensor) -> _Seen:
        if "fvd" in self.metrics:
            self.features.append(self.judges.fvd(frames))
        if "is" in self.metrics:
            self.logits.append(self.judges.inception(frames))
        if not set(NEED_CLIP) & set(self.metrics):
            return _Seen(frames, None)
        # The captions are compared with every frame, the picture with the first alone.
        return _Seen(frames, self.judges.clip.see(frames if "clipsim" in self.metrics else frames[:1]))

    def add(self, seen: _Seen, caption: Tensor | None, true: _Seen | None) -> None:
        """The measures of one clip; `true` is what its first frame is compared with, none for the true clip itself."""
        if caption is not None:
            similarity = embedding_similarity(seen.embeddings, caption)
            self._append("clipsim", float(similarity.mean()), similarity)
        if "fff_clip" in self.metrics and true is not None:
            self._append("fff_clip", float(embedding_similarity(seen.embeddings[:1], true.embeddings[:1])))
        if "fff_ssim" in self.metrics:
            picture = (true or seen).frames[:1]
            kept = frame_ssim(seen.frames, one_a_frame(picture, seen.frames))
            self.over_frames.setdefault("fff_ssim", []).append(kept)
            if true is not None:
                self._append("fff_ssim", float(first_frame_ssim(seen.frames[:1], picture)))

    def _append(self, name: str, value: float, over_frames: Tensor | None = None) -> None:
        self.of_clips.setdefault(name, []).append(value)
        if over_frames is not None:
            self.over_frames.setdefault(name, []).append(over_frames)

    def row(self, label: str, reference: _Gathered | None) -> Row:
        of_set = {}
        if self.features and reference is not None:
            of_set["fvd"] = frechet_distance(torch.stack(self.features), torch.stack(reference.features))
        if self.logits:
            of_set["is"] = inception_score(torch.stack(self.logits))
        curves = {name: torch.stack(rows).mean(0).tolist() for name, rows in self.over_frames.items()}
        return Row(label, of_set, self.of_clips, curves)
