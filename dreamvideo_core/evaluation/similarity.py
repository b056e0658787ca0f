"""How like a clip's frames are to pictures, frame by frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import InputError
from .metrics import ssim_map

LEAST_SIDE = 6  # SSIM's window reflects five pixels at the border
_AT_ONCE = 8  # frames: SSIM keeps many maps of their size


def check_side(name: str, frames: Tensor) -> None:
    """`frames` (T, 3, H, W) are large enough for SSIM, or `InputError`."""
    height, width = frames.shape[-2:]
    if min(height, width) < LEAST_SIDE:
        raise InputError(f"{name}: {width} x {height} pixels; allowed: {LEAST_SIDE} x {LEAST_SIDE} or more. Enlarge the frames")


def one_a_frame(reference: Tensor, frames: Tensor) -> Tensor:
    """`reference`, one picture or as many as there are frames (T, 3, H, W), as one for each; raises `InputError`."""
    if reference.shape[-2:] != frames.shape[-2:]:
        (height, width), (high, wide) = reference.shape[-2:], frames.shape[-2:]
        raise InputError(
            f"reference is {width} x {height} pixels, but frames are {wide} x {high}; allowed: the same size. Bring reference "
            f"to {wide} x {high} first (Upscale Image)"
        )
    if len(reference) not in (1, len(frames)):
        raise InputError(
            f"reference has {len(reference)} pictures for {len(frames)} frames; allowed: 1, or one for each frame. Take as "
            "many of both (Get Image from Batch)"
        )
    return reference.expand_as(frames)


def frame_ssim(frames: Tensor, references: Tensor) -> Tensor:
    """Mean structural similarity of each frame to its reference, both (T, 3, H, W) in [-1, 1]: (T,)."""
    pairs = zip(frames.split(_AT_ONCE), references.split(_AT_ONCE), strict=True)
    return torch.cat([ssim_map(frame, reference).mean((1, 2)) for frame, reference in pairs])


def embedding_similarity(first: Tensor, second: Tensor) -> Tensor:
    """The cosine between embeddings (B, D) and (B, D) or (1, D), -1 to 1: (B,). Of CLIP's it is FFF_CLIP."""
    return F.cosine_similarity(first.float(), second.float())
