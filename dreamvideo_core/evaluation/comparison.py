"""The paper's metrics (Tables 1 and 2) of any model's clips: FVD, IS, CLIP-SIM, FFF_CLIP and FFF_SSIM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..common.checks import InputError
from .clip_embedder import ClipEmbedder
from .clips import REFERENCE, ClipSet, ClipShape, read_clip_at
from .distribution import LEAST_CLIPS, frechet_distance, inception_score
from .metrics import first_frame_ssim
from .networks import VideoNetwork
from .similarity import embedding_similarity, frame_ssim, reference_per_frame

METRICS = ("fvd", "is", "clipsim", "fff_clip", "fff_ssim")
NEED_REFERENCE = ("fvd", "fff_clip", "fff_ssim")
NEED_CAPTIONS = ("clipsim",)
NEED_CLIP = ("clipsim", "fff_clip")
# The metrics that are also plotted over frames.
CURVES = {"fff_ssim": "SSIM of each frame to the picture", "clipsim": "CLIP similarity of each frame to the caption"}


@dataclass(frozen=True)
class MetricNetworks:
    """The networks that the metrics need; None for those that no metric asks for."""

    fvd: VideoNetwork | None = None
    inception: VideoNetwork | None = None
    clip: ClipEmbedder | None = None


@dataclass(frozen=True)
class Comparison:
    """Sets of clips with the same `names`, and how they are measured: at `shape`, by some of `METRICS`."""

    sets: Sequence[ClipSet]
    names: Sequence[str]
    shape: ClipShape
    metrics: Sequence[str]
    reference: ClipSet | None = None
    captions: Mapping[str, str] = field(default_factory=dict)


@dataclass
class SetResult:
    """A set's metrics by name: of the whole set, of each clip, and the clips' mean at each frame."""

    label: str
    of_set: dict[str, float]
    of_clips: dict[str, list[float]]
    curves: dict[str, list[float]]


def compare(
    comparison: Comparison, networks: MetricNetworks, on_clip: Callable[[int], None] = lambda done: None
) -> list[SetResult]:
    """The results of every set and, last, of the true clips if there are any; `on_clip` is told how many clips are done.

    Every clip is decoded once. Raises `InputError` for a clip that cannot be read. Call `check_count` before.
    """
    reference = _SetMeasurement(comparison, networks) if comparison.reference else None
    measurements = [_SetMeasurement(comparison, networks) for _ in comparison.sets]
    for number, name in enumerate(comparison.names):
        caption = None if "clipsim" not in comparison.metrics else networks.clip.embed_text(comparison.captions[name])
        true = None
        if reference:
            true = reference.look_at(read_clip_at(comparison.reference.paths[name], comparison.shape))
            reference.add(true, caption, None)
        for index, (clips, measurement) in enumerate(zip(comparison.sets, measurements, strict=True)):
            measurement.add(measurement.look_at(read_clip_at(clips.paths[name], comparison.shape)), caption, true)
            on_clip(number * len(measurements) + index + 1)
    results = [m.result(clips.label, reference) for clips, m in zip(comparison.sets, measurements, strict=True)]
    return [*results, reference.result(REFERENCE, None)] if reference else results


def check_count(metrics: Sequence[str], clips: int) -> None:
    """Raise `InputError` if these metrics need more clips."""
    if "fvd" in metrics and clips < LEAST_CLIPS:
        raise InputError(f"fvd is asked of {clips} clip; allowed: {LEAST_CLIPS} or more, and thousands to be compared")


@dataclass(frozen=True)
class _SeenClip:
    """One clip (T, 3, H, W), and CLIP's embeddings (T, D) of its frames, or of the first alone."""

    frames: Tensor
    embeddings: Tensor | None


class _SetMeasurement:
    """The measures of one set's clips so far."""

    def __init__(self, comparison: Comparison, networks: MetricNetworks):
        self.metrics, self.networks = comparison.metrics, networks
        self.features: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.of_clips: dict[str, list[float]] = {}
        self.over_frames: dict[str, list[Tensor]] = {}

    def look_at(self, frames: Tensor) -> _SeenClip:
        """Run the networks on a clip (T, 3, H, W)."""
        if "fvd" in self.metrics:
            self.features.append(self.networks.fvd(frames))
        if "is" in self.metrics:
            self.logits.append(self.networks.inception(frames))
        if not set(NEED_CLIP) & set(self.metrics):
            return _SeenClip(frames, None)
        # CLIP-SIM compares every frame with the caption, FFF_CLIP only the first with the true clip's.
        return _SeenClip(frames, self.networks.clip.embed_frames(frames if "clipsim" in self.metrics else frames[:1]))

    def add(self, seen: _SeenClip, caption: Tensor | None, true: _SeenClip | None) -> None:
        """Measure a clip against its caption's embedding and the true clip; `true` is None for the true clip itself."""
        if caption is not None:
            similarity = embedding_similarity(seen.embeddings, caption)
            self._append("clipsim", float(similarity.mean()), similarity)
        if "fff_clip" in self.metrics and true is not None:
            self._append("fff_clip", float(embedding_similarity(seen.embeddings[:1], true.embeddings[:1])))
        if "fff_ssim" in self.metrics:
            picture = (true or seen).frames[:1]
            similarity = frame_ssim(seen.frames, reference_per_frame(picture, seen.frames))
            self.over_frames.setdefault("fff_ssim", []).append(similarity)
            if true is not None:
                self._append("fff_ssim", float(first_frame_ssim(seen.frames[:1], picture)))

    def _append(self, name: str, value: float, over_frames: Tensor | None = None) -> None:
        self.of_clips.setdefault(name, []).append(value)
        if over_frames is not None:
            self.over_frames.setdefault(name, []).append(over_frames)

    def result(self, label: str, reference: _SetMeasurement | None) -> SetResult:
        of_set = {}
        if self.features and reference is not None:
            of_set["fvd"] = frechet_distance(torch.stack(self.features), torch.stack(reference.features))
        if self.logits:
            of_set["is"] = inception_score(torch.stack(self.logits))
        curves = {name: torch.stack(rows).mean(0).tolist() for name, rows in self.over_frames.items()}
        return SetResult(label, of_set, self.of_clips, curves)
