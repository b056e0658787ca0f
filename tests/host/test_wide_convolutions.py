"""Wide layers of ComfyUI's own operations convolve by the pack's ways, with the weights that ComfyUI gives them."""

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
def test_wide_layers_take_cast_and_patched_weights(
    operations: str, dtype: torch.dtype, host: InProcessComfyUI, monkeypatch: pytest.MonkeyPatch
):
    import comfy.ops

    layers, winograd = host.module("dreamvideo_core.layers"), host.module("dreamvideo_core.winograd")
    taken = []
    for name in ("conv2d", "conv_over_time"):
        convolve = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *given, f=convolve, name=name: taken.append(name) or f(*given))
    make = layers.LayerFactory(getattr(comfy.ops, operations), dtype=dtype)
    spatial, temporal = make.conv2d(256, 256), make.temporal_conv(256, 256)
    for layer in (spatial, temporal):
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
        layer.weight_function = [lambda weight: 2 * weight]  # as patches of models that are not whole on their device
    frames, clip = torch.randn(2, 256, 16, 16), torch.randn(1, 256, 8, 100)
    for layer, x, padding in ((spatial, frames, 1), (temporal, clip, (1, 0))):
        weight = layer.weight.float()
        true = F.conv2d(x, 2 * (weight if weight.ndim == 4 else weight[..., 0]), layer.bias.float(), padding=padding)
        assert relative_error(layer(x), true) < 3e-6
    assert taken == ["conv2d", "conv_over_time"]
