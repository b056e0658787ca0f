"""A source's clips as latents, encoded once and kept on disk."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..checks import InputError
from ..images import to_uint8
from ..tensor_files import read_metadata, write_tensors
from .data.source import Clips, Source

_BLOCK = 64


class Rows:
    """The rows of many tensors as if they were one tensor; those of mapped files are read when they are asked for."""

    def __init__(self, blocks: Sequence[Tensor]):
        self.blocks, self.ends = blocks, list(accumulate(map(len, blocks)))

    def __getitem__(self, rows: Sequence[int]) -> Tensor:
        """Some rows (K, ...), copied."""
        return torch.stack([self._row(row) for row in rows])

    def _row(self, row: int) -> Tensor:
        block = bisect_right(self.ends, row)
        return self.blocks[block][row - self.ends[block]]


@dataclass(frozen=True)
class LatentClips:
    """Row r holds clip `numbers[r]` of the source; images are the clips' first frames."""

    latents: Tensor | Rows  # (N, T, 4, h, w) float16, as the model sees them
    images: Tensor | Rows  # (N, 3, H, W) uint8
    source: Source
    numbers: Sequence[int]
    skipped: Mapping[int, str] = field(default_factory=dict)  # clips of the source that have no row, and why

    def __len__(self) -> int:
        return len(self.numbers)


def from_bytes(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


def cached_clips(
    folder: Path,
    source: Source,
    autoencoder: str,
    encode: Callable[[Tensor], Tensor],
    on_block: Callable[[int, int], None] = lambda done, total: None,
    share: slice = slice(None),
    wait: Callable[[], None] = lambda: None,
) -> LatentClips:
    """Load a source's cache below `folder`, encoding what it lacks; a stopped run goes on where it was.

    `encode` takes frames (B, T, 3, H, W) to model latents (B, T, 4, h, w); `autoencoder` names it, so that another one
    does not find its latents. Of several processes each encodes the `share` of the blocks that is its own and then calls
    `wait` for the others. InputError when not one clip can be used.
    """
    folder = folder / f"{source.cache_name}-{autoencoder}"
    blocks = [range(start, start + _BLOCK) for start in range(0, len(source), _BLOCK)]
    paths = [folder / f"{block.start:07d}.safetensors" for block in blocks]
    own = list(zip(blocks, paths, strict=True))[share]
    for done, (block, path) in enumerate(own, 1):
        if not path.is_file():
            _write_block(path, source.read(block), encode)
        on_block(done, len(own))
    wait()
    return _loaded(source, blocks, paths)


def _write_block(path: Path, clips: Clips, encode: Callable[[Tensor], Tensor]) -> None:
    tensors = {}
    if clips.numbers:
        with torch.no_grad():
            latents = encode(clips.frames).half()
        if not latents.isfinite().all():
            raise FloatingPointError(
                "the autoencoder gives latents that are no numbers or too large for float16: train it longer or at a lower rate"
            )
        tensors = {"latents": latents, "images": to_uint8(clips.frames[:, 0]).contiguous()}
    try:
        write_tensors(path, tensors, {"skipped": json.dumps(clips.skipped)})
    except OSError as error:
        raise OSError(
            f"{path} could not be written ({error.strerror or error}); what was encoded before it is kept: make room, and the "
            "same command with --resume goes on"
        ) from error


def _loaded(source: Source, blocks: Sequence[range], paths: Sequence[Path]) -> LatentClips:
    skipped: dict[int, str] = {}
    for path in paths:
        skipped |= {int(number): reason for number, reason in json.loads(read_metadata(path).get("skipped", "{}")).items()}
    if len(skipped) == len(source):
        first = min(skipped)
        raise InputError(f"no clip can be used: {source.title(first)} is {skipped[first]}, and so on for all {len(skipped)}")
    usable = [[n for n in block if n < len(source) and n not in skipped] for block in blocks]
    full = [load_file(path) for numbers, path in zip(usable, paths, strict=True) if numbers]
    numbers = [number for block in usable for number in block]
    return LatentClips(Rows([b["latents"] for b in full]), Rows([b["images"] for b in full]), source, numbers, skipped)
