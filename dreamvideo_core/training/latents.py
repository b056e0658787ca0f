"""A source's clips as latents, encoded once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..common.checks import InputError
from ..common.json_files import parse_object
from ..media.images import to_uint8
from ..weights.tensor_files import read_metadata
from .cache import ALONE, CachedRows, Processes, RowSubset, fill_cache
from .data.source import ClipSource, PixelClips


@dataclass(frozen=True)
class LatentClips:
    """Row r is clip `numbers[r]` of the source as latents; images are the clips' first frames."""

    latents: Tensor | CachedRows | RowSubset  # (N, T, 4, h, w) float16, scaled for the model
    images: Tensor | CachedRows | RowSubset  # (N, 3, H, W) uint8
    source: ClipSource
    numbers: Sequence[int]
    skipped: Mapping[int, str] = field(default_factory=dict)  # clips of the source without a row, and why
    held_out: Sequence[int] = ()  # clips of the source that are not trained on

    def __len__(self) -> int:
        return len(self.numbers)

    def without(self, files: Collection[int]) -> LatentClips:
        """These clips without the rows of some files, of which the first windows are held out."""
        file_of = [self.source.file_of(number) for number in self.numbers]
        first = {file: number for file, number in reversed(list(zip(file_of, self.numbers, strict=True)))}
        rows = [row for row, file in enumerate(file_of) if file not in files]
        return replace(
            self,
            latents=RowSubset(self.latents, rows),
            images=RowSubset(self.images, rows),
            numbers=[self.numbers[row] for row in rows],
            held_out=[first[file] for file in files],
        )


def cached_clips(
    folder: Path, source: ClipSource, autoencoder: str, encode: Callable[[Tensor], Tensor], processes: Processes = ALONE
) -> LatentClips:
    """Load the cache of a source's clips below `folder`, after encoding what it lacks.

    `encode` takes frames (B, T, 3, H, W) to model latents (B, T, 4, h, w). `autoencoder` names its weights in the cache's
    folder, which other weights must not share. Raises `InputError` if not one clip can be used.
    """
    folder = folder / f"latents-{source.cache_name}-{autoencoder}"
    return _load(source, fill_cache(folder, len(source), lambda rows: _encode(source.read(rows), encode), processes))


def _encode(clips: PixelClips, encode: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {}
    if clips.numbers:
        with torch.no_grad():
            latents = encode(clips.frames).half()
        if not latents.isfinite().all():
            raise InputError(
                "the autoencoder gives latents that are no numbers or too large for float16: train it longer or at a lower rate"
            )
        tensors = {"latents": latents, "images": to_uint8(clips.frames[:, 0]).contiguous()}
    return tensors, {"skipped": json.dumps(clips.skipped)}


def _skipped(path: Path) -> dict[str, str]:
    return parse_object(read_metadata(path).get("skipped", "{}"), f"{path}: its list of skipped clips", "Delete the file.")


def _load(source: ClipSource, files: Sequence[tuple[range, Path]]) -> LatentClips:
    skipped: dict[int, str] = {}
    for _, path in files:
        skipped |= {int(number): reason for number, reason in _skipped(path).items()}
    if len(skipped) == len(source):
        first = min(skipped)
        raise InputError(f"no clip can be used: {source.title(first)} is {skipped[first]}, and so on for all {len(skipped)}")
    usable = [([n for n in rows if n < len(source) and n not in skipped], path) for rows, path in files]
    tensors = [load_file(path) for numbers, path in usable if numbers]
    latents, images = (CachedRows([of_file[name] for of_file in tensors]) for name in ("latents", "images"))
    return LatentClips(latents, images, source, [number for numbers, _ in usable for number in numbers], skipped)
