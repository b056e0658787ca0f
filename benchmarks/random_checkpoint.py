"""A full-size model without its training: memory and time depend on the shapes of weights, not on their values."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dreamvideo_core.models.config import PRESETS
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.weights.checkpoint import Checkpoint, save_checkpoint
from dreamvideo_core.weights.tensor_files import LazyTensor, LazyTensors

_DRAWN = 2**20 + 1  # values, repeated for more: drawing all of them takes longer than writing them


def random_checkpoint(preset: str, path: Path) -> None:
    """The preset's U-Net and branch in bfloat16; norms keep their ones, so that no value overflows."""
    config = replace(PRESETS[preset], text_encoder=None, vae=None)
    shapes = DreamVideo(config, Operations(device="meta")).state_dict()
    tensors = LazyTensors({name: _lazy(name, outline) for name, outline in shapes.items()})
    parts = {part: tensors.renamed(partial(_without, f"{part}.")) for part in ("unet", "retention")}
    save_checkpoint(path, Checkpoint(config, parts), torch.bfloat16)


def _lazy(name: str, outline: torch.Tensor) -> LazyTensor:
    return LazyTensor(lambda: _random(name, outline.shape), lambda: outline)


def _random(name: str, shape: torch.Size) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape) if "norm" in name and name.endswith("weight") else torch.zeros(shape)
    few = torch.randn(min(shape.numel(), _DRAWN)) / shape[1:].numel() ** 0.5
    return few.repeat(-(-shape.numel() // _DRAWN))[: shape.numel()].view(shape)


def _without(prefix: str, name: str) -> str | None:
    return name.removeprefix(prefix) if name.startswith(prefix) else None
