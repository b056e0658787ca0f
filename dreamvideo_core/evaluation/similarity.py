"""Similarity of a clip's frames to pictures, frame by frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import InputError
from .metrics import ssim_map

LEAST_SIDE = 6  # pixels: SSIM's window reflects five at the border
_BATCH = 8  # frames: SSIM keeps many maps of their size


def check_side(name: str, frames: Tensor) -> None:
    """Raise `InputError` if `frames` (T, 3, H, W) are too small for SSIM."""
    height, width = frames.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels; allowed: {LEAST_SIDE} x {LEAST_SIDE} or more. Enlarge the frames")


def reference_per_frame(reference: Tensor, frames: Tensor) -> Tensor:
    """One picture for each of `frames` (T, 3, H, W), from a `reference` of one picture or T. Raises `InputError`."""
    if reference.shape[-2:] != frames.shape[-2:]:
        size, wanted = (f"{x.shape[-1]} x {x.shape[-2]}" for x in (reference, frames))
        raise InputError(
            f"reference is {size} pixels, but frames are {wanted}; allowed: the same size. Bring reference to {wanted} first "
            "(Upscale Image)"
        )
    if len(reference) not in (1, len(frames)):
        raise InputError(
            f"reference has {len(reference)} pictures for {len(frames)} frames; allowed: 1, or one for each frame. Take as "
            "many of both (Get Image from Batch)"
        )
    return reference.expand_as(frames)


def frame_ssim(frames: Tensor, references: Tensor) -> Tensor:
    """Mean SSIM of each frame to its reference, both (T, 3, H, W) in [-1, 1]: (T,)."""
    pairs = zip(frames.split(_BATCH), references.split(_BATCH), strict=True)
    return torch.cat([ssim_map(frame, reference).mean((1, 2)) for frame, reference in pairs])


def embedding_similarity(first: Tensor, second: Tensor) -> Tensor:
    """The cosine between embeddings (B, D) and (B, D) or (1, D): (B,), from -1 to 1. With CLIP's it is FFF_CLIP."""
    return F.cosine_similarity(first.float(), second.float())
