"""Less memory for more time: what a block computes inside is forgotten, and computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.utils.checkpoint import checkpoint

from ..models.dreamvideo import DreamVideo
from ..models.unet import DownBlock, Encoder, MidBlock, UpBlock


def checkpoint_gradients(model: DreamVideo) -> None:
    """Of every layer of every block keep the input alone; gradients stay the same to the last bit."""
    for module in model.modules():
        if isinstance(module, (DownBlock, UpBlock)):
            module.layer = _forgetful(module.layer)
        elif isinstance(module, MidBlock):
            module.forward = _forgetful(module.forward)
        elif isinstance(module, Encoder) and hasattr(module, "transformer_in"):
            module.transformer_in.forward = _forgetful(module.transformer_in.forward)


def _forgetful(function: Callable) -> Callable:
    return partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)  # no layer draws anything
