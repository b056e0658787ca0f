"""Convolutions over time compute in two dimensions with the weights that ComfyUI gives a Conv3d."""

import pytest
import torch
import torch.nn.functional as F
from comfy_host.in_process import InProcessComfyUI
from deviation import relative_error


@torch.no_grad()
@pytest.mark.parametrize(
    ("operations", "dtype"),
    [("disable_weight_init", torch.float32), ("manual_cast", torch.float32), ("manual_cast", torch.bfloat16)],
)
def test_cast_and_patched_weights(operations: str, dtype: torch.dtype, host: InProcessComfyUI):
    import comfy.ops

    layers = host.module("dreamvideo_core.models.layers")
    conv = layers.Operations(getattr(comfy.ops, operations), dtype=dtype).temporal_conv(32, 48)
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    conv.weight_function = [lambda weight: 2 * weight]  # as patches of models that are not whole on their device
    clip = torch.randn(1, 32, 8, 100)
    true = F.conv3d(clip[..., None], 2 * conv.weight.float(), conv.bias.float(), padding=(1, 0, 0))[..., 0]
    assert relative_error(conv(clip), true) < 3e-6
