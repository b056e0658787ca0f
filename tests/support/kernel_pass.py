"""A pass of a small model as a large one runs on a GPU: channels last, by triton_kernels.py, which Triton interprets."""

from unittest.mock import MagicMock, patch

import torch
from torch import Tensor

from dreamvideo_core.models.config import ModelConfig
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.kernels import triton_kernels


@torch.no_grad()
def pass_by_kernels(
    config: ModelConfig, weights: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, dict[str, int]]:
    """What the model makes of `inputs`, and how often each kernel was called."""
    model, counted = DreamVideo(config), MagicMock(wraps=triton_kernels)
    model.load_state_dict(weights)
    with patch("dreamvideo_core.models.kernels.fused.kernels_for", lambda x, least=0: counted):
        made = model(*inputs)
    names = ("group_norm", "layer_norm", "add_layer_norm", "geglu", "attention_over_time")
    return made, {name: getattr(counted, name).call_count for name in names}
