"""Gradient checkpointing: less memory for more time. Activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.utils.checkpoint import checkpoint

from ..models.dreamvideo import DreamVideo
from ..models.unet import DownBlock, Encoder, MidBlock, UpBlock


def checkpoint_gradients(model: DreamVideo) -> None:
    """Keep only the input of every layer of every block. Gradients stay equal bit for bit."""
    for module in model.modules():
        if isinstance(module, (DownBlock, UpBlock)):
            module.layer = _checkpointed(module.layer)
        elif isinstance(module, MidBlock):
            module.forward = _checkpointed(module.forward)
        elif isinstance(module, Encoder) and hasattr(module, "transformer_in"):
            module.transformer_in.forward = _checkpointed(module.transformer_in.forward)


def _checkpointed(function: Callable) -> Callable:
    return partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)  # no layer is random
