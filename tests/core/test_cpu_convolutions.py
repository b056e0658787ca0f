import pytest
import torch
import torch.nn.functional as F
from deviation import relative_error

from dreamvideo_core import cpu_convolutions, winograd
from dreamvideo_core.layers import LayerFactory, TemporalConvLayer


@pytest.fixture
def ways(monkeypatch):
    """Which ways were taken, in order."""
    taken = []

    def noted(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, **named: taken.append(name) or function(*given, **named))

    noted(cpu_convolutions, "_im2col")
    noted(winograd, "conv2d")
    noted(winograd, "conv_over_time")
    return taken


@torch.no_grad()
@pytest.mark.parametrize(
    ("size", "stride", "way"),
    [
        ((4, 3), 1, "_im2col"),
        ((13, 10), 1, "conv2d"),
        ((33, 32), 1, "conv2d"),
        ((13, 10), 2, "_im2col"),
        ((20, 20), 2, None),
    ],
)
def test_wide_layers(size, stride, way, ways):
    conv, x = LayerFactory().conv2d(256, 300, stride=stride), torch.randn(2, 256, *size)
    true = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), stride=stride, padding=1)
    made = conv(x)
    assert relative_error(made, true) < 3e-6
    assert ways == [way] * (way is not None)


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "places", "way"), [(7, 5, "_im2col"), (7, 20, None), (7, 100, "conv_over_time"), (5, 100, None)]
)
def test_wide_layers_over_time(frames, places, way, ways):
    conv, x = LayerFactory().temporal_conv(256, 300), torch.randn(2, 256, frames, places)
    true = F.conv2d(x.double(), conv.weight[..., 0].double(), conv.bias.double(), padding=(1, 0))
    made = conv(x)
    assert relative_error(made, true) < 3e-6
    assert ways == [way] * (way is not None)


def test_other_inputs_are_left_to_torch(ways):
    x, weight, bias = torch.randn(1, 256, 8, 8), torch.randn(256, 256, 3, 3), torch.randn(256)
    refused = [cpu_convolutions.conv2d(x, weight, bias, 1)]  # gradients
    with torch.no_grad():
        refused += [
            cpu_convolutions.conv2d(x[:, :255], weight[:, :255], bias, 1),
            cpu_convolutions.conv2d(x, weight[:255], bias[:255], 1),
            cpu_convolutions.conv2d(x, weight, None, 1),
            cpu_convolutions.conv2d(x.double(), weight.double(), bias.double(), 1),
            cpu_convolutions.conv2d(x.bfloat16(), weight, bias, 1),
            cpu_convolutions.conv2d(x.to("meta"), weight.to("meta"), bias.to("meta"), 1),
        ]
        with torch.autocast("cpu", torch.bfloat16):
            refused.append(cpu_convolutions.conv2d(x, weight, bias, 1))
    assert refused == [None] * 8
    assert not ways


@torch.no_grad()
def test_another_padding_mode_is_heeded(ways):
    conv, x = LayerFactory().conv2d(256, 256), torch.randn(1, 256, 8, 8)
    conv.padding_mode, conv._reversed_padding_repeated_twice = "circular", [1, 1, 1, 1]
    true = F.conv2d(F.pad(x, [1, 1, 1, 1], mode="circular"), conv.weight, conv.bias)
    torch.testing.assert_close(conv(x), true)
    assert not ways


def test_training_computes_what_inference_does(ways):
    layer, x = TemporalConvLayer(256, groups=32, layers=2, make=LayerFactory()), torch.randn(8, 256, 12, 12)
    with torch.no_grad():
        made = layer(x, num_frames=8)
    assert ways == ["conv_over_time"] * 2
    assert relative_error(made, layer(x, num_frames=8)) < 3e-6
    assert len(ways) == 2


@torch.no_grad()
def test_norms_are_given_what_they_need_not_copy():
    """Else a pass takes a twentieth longer."""
    layer = TemporalConvLayer(256, groups=32, layers=2, make=LayerFactory())
    seen = []
    for norm in (layer.conv1[0], layer.conv2[0]):
        norm.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    layer(torch.randn(8, 256, 12, 12).contiguous(memory_format=torch.channels_last), num_frames=8)
    assert [x.stride() for x in seen] == [(8 * 144 * 256, 1, 144 * 256, 256)] * 4
