"""Clips of the small world as latents, encoded once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import atomic
from ..images import to_uint8
from ..sprites import Clip, render_batch, sample_clip
from ..sprites.scene import seeded
from .recipe import Phase

_BLOCK = 64


@dataclass(frozen=True)
class LatentClips:
    """Clip `i` of the cache is `sample_clip(seeded("train", seed, i), margin)`; images are its first frames."""

    latents: Tensor  # (N, T, 4, h, w) float16, as the model sees them
    images: Tensor  # (N, 3, H, W) uint8
    seed: int
    margin: float

    def __len__(self) -> int:
        return len(self.latents)

    def clip(self, index: int) -> Clip:
        return sample_clip(seeded("train", self.seed, index), self.margin)


def from_bytes(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


def cached_clips(
    folder: Path,
    phase: Phase,
    size: tuple[int, int],
    seed: int,
    autoencoder: str,
    encode: Callable[[Tensor], Tensor],
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> LatentClips:
    """Load the cache of one size (height, width), encoding what it lacks; a stopped run goes on where it was.

    `encode` takes frames (B, T, 3, H, W) to model latents (B, T, 4, h, w); `autoencoder` names it, so that another one
    does not find its latents.
    """
    height, width = size
    folder = folder / f"latents-{width}x{height}x{phase.num_frames}-margin{phase.margin:g}-seed{seed}-{autoencoder}"
    folder.mkdir(parents=True, exist_ok=True)
    count = phase.clips_at(size)
    starts = range(0, count, _BLOCK)
    blocks = []
    for number, start in enumerate(starts):
        path = folder / f"{start:07d}.safetensors"
        if not path.is_file():
            _encode_block(path, range(start, start + _BLOCK), phase, size, seed, encode)
        blocks.append(load_file(path))
        on_block(number + 1, len(starts))
    joined = {key: torch.cat([b[key] for b in blocks])[:count] for key in ("latents", "images")}
    return LatentClips(**joined, seed=seed, margin=phase.margin)


def _encode_block(
    path: Path,
    indices: range,
    phase: Phase,
    size: tuple[int, int],
    seed: int,
    encode: Callable[[Tensor], Tensor],
) -> None:
    clips = [sample_clip(seeded("train", seed, i), phase.margin) for i in indices]
    frames = render_batch(clips, num_frames=phase.num_frames, height=size[0], width=size[1])
    with torch.no_grad():
        latents = encode(frames).half()
    if not latents.isfinite().all():
        raise FloatingPointError(
            "the autoencoder gives latents that are no numbers or too large for float16: train it longer or at a lower rate"
        )
    with atomic(path) as temporary:
        save_file({"latents": latents, "images": to_uint8(frames[:, 0]).contiguous()}, temporary)
