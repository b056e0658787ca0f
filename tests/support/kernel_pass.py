"""A pass of a small model as a large one runs on a GPU: channels last, by kernels.py, which Triton interprets."""

from collections import Counter
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor

from dreamvideo_core import kernels
from dreamvideo_core.config import ModelConfig
from dreamvideo_core.model import DreamVideo


@torch.no_grad()
def laid_out_for_kernels(config: ModelConfig, weights: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> tuple[Tensor, Counter]:
    """What the model makes of `inputs`, and how often each kernel was called."""
    model = DreamVideo(config)
    model.load_state_dict(weights)
    calls = Counter()

    def counted(name: str):
        return lambda *arguments: (calls.update([name]), getattr(kernels, name)(*arguments))[1]

    stand_in = SimpleNamespace(group_norm=counted("group_norm"), geglu=counted("geglu"))
    with (
        patch("dreamvideo_core.fused.kernels_for", lambda x: stand_in),
        patch("dreamvideo_core.layers.kernels_for", lambda x: stand_in),
        patch("dreamvideo_core.model.laid_out", lambda x: x.contiguous(memory_format=torch.channels_last)),
    ):
        return model(*inputs), calls
