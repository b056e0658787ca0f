"""A pass of a small model as a large one runs on a GPU: channels last, by kernels.py, which Triton interprets."""

from unittest.mock import MagicMock, patch

import torch
from torch import Tensor

from dreamvideo_core import kernels
from dreamvideo_core.config import ModelConfig
from dreamvideo_core.model import DreamVideo


@torch.no_grad()
def pass_by_kernels(
    config: ModelConfig, weights: dict[str, Tensor], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, dict[str, int]]:
    """What the model makes of `inputs`, and how often each kernel was called."""
    model, counted = DreamVideo(config), MagicMock(wraps=kernels)
    model.load_state_dict(weights)
    with patch("dreamvideo_core.fused.kernels_for", lambda x, least=0: counted):
        made = model(*inputs)
    names = ("group_norm", "layer_norm", "add_layer_norm", "geglu", "attention_over_time")
    return made, {name: getattr(counted, name).call_count for name in names}
