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
from .cache import ALONE, Makers, Rows, SomeRows, make_blocks
from .data.source import Clips, Source


@dataclass(frozen=True)
class LatentClips:
    """Row r holds clip `numbers[r]` of the source; images are the clips' first frames."""

    latents: Tensor | Rows | SomeRows  # (N, T, 4, h, w) float16, as the model sees them
    images: Tensor | Rows | SomeRows  # (N, 3, H, W) uint8
    source: Source
    numbers: Sequence[int]
    skipped: Mapping[int, str] = field(default_factory=dict)  # clips of the source that have no row, and why
    held_out: Sequence[int] = ()  # clips of the source that are not trained on

    def __len__(self) -> int:
        return len(self.numbers)

    def without(self, files: Collection[int]) -> LatentClips:
        """No row of these files; the first window of each is held out."""
        file_of = [self.source.file_of(number) for number in self.numbers]
        first = {file: number for file, number in reversed(list(zip(file_of, self.numbers, strict=True)))}
        rows = [row for row, file in enumerate(file_of) if file not in files]
        return replace(
            self,
            latents=SomeRows(self.latents, rows),
            images=SomeRows(self.images, rows),
            numbers=[self.numbers[row] for row in rows],
            held_out=[first[file] for file in files],
        )


def cached_clips(
    folder: Path, source: Source, autoencoder: str, encode: Callable[[Tensor], Tensor], makers: Makers = ALONE
) -> LatentClips:
    """Load a source's cache below `folder`, encoding what it lacks; a stopped run goes on where it was.

    `encode` takes frames (B, T, 3, H, W) to model latents (B, T, 4, h, w); `autoencoder` names it, so that another one
    does not find its latents. InputError when not one clip can be used.
    """
    folder = folder / f"latents-{source.cache_name}-{autoencoder}"
    return _loaded(source, make_blocks(folder, len(source), lambda block: _encoded(source.read(block), encode), makers))


def _encoded(clips: Clips, encode: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {}
    if clips.numbers:
        with torch.no_grad():
            latents = encode(clips.frames).half()
        if not latents.isfinite().all():
            raise FloatingPointError(
                "the autoencoder gives latents that are no numbers or too large for float16: train it longer or at a lower rate"
            )
        tensors = {"latents": latents, "images": to_uint8(clips.frames[:, 0]).contiguous()}
    return tensors, {"skipped": json.dumps(clips.skipped)}


def _skipped(path: Path) -> dict[str, str]:
    return parse_object(read_metadata(path).get("skipped", "{}"), f"{path}: its list of skipped clips", "Delete the file.")


def _loaded(source: Source, blocks: Sequence[tuple[range, Path]]) -> LatentClips:
    skipped: dict[int, str] = {}
    for _, path in blocks:
        skipped |= {int(number): reason for number, reason in _skipped(path).items()}
    if len(skipped) == len(source):
        first = min(skipped)
        raise InputError(f"no clip can be used: {source.title(first)} is {skipped[first]}, and so on for all {len(skipped)}")
    usable = [([n for n in block if n < len(source) and n not in skipped], path) for block, path in blocks]
    full = [load_file(path) for numbers, path in usable if numbers]
    numbers = [number for block, _ in usable for number in block]
    return LatentClips(Rows([b["latents"] for b in full]), Rows([b["images"] for b in full]), source, numbers, skipped)
