import pytest
import torch
import torch.nn.functional as F

from dreamvideo_core import cpu_convolutions, winograd
from dreamvideo_core.layers import LayerFactory, TemporalConvLayer

CHANNELS_LAST = torch.channels_last


def error(made, true):
    return ((made - true).norm() / true.norm()).item()


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["whole", "in parts"])
def parts(request, monkeypatch):
    if request.param == "in parts":
        monkeypatch.setattr(winograd, "_INPUTS", 500)
        monkeypatch.setattr(winograd, "_TAPS", 150)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (2, 5, 7, 9), (2, 4, 4, 6), (3, 5, 40, 41), (64, 3, 4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, CHANNELS_LAST])
def test_two_dimensions(shape, layout):
    x, weight, bias = drawn(*shape).contiguous(memory_format=layout), drawn(6, shape[1], 3, 3), drawn(6)
    made = winograd.conv2d(x, weight, bias)
    true = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert made.shape == true.shape
    assert error(made, true) < 3e-6


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(1, 5, 1, 3), (2, 5, 7, 9), (3, 4, 8, 6), (1, 5, 16, 100)])
def test_over_time(shape):
    x, weight, bias = drawn(*shape), drawn(6, shape[1], 3, 1), drawn(6)
    made = winograd.conv_over_time(x, weight, bias)
    true = F.conv2d(x.double(), weight.double(), bias.double(), padding=(1, 0))
    assert made.shape == true.shape
    assert error(made, true) < 3e-6


# The first of few places, which are one product; the others by Winograd's algorithm, or torch's with stride 2.
@torch.no_grad()
@pytest.mark.parametrize("size", [(4, 3), (13, 10), (20, 20)])
@pytest.mark.parametrize("stride", [1, 2])
def test_wide_layers(size, stride):
    conv = LayerFactory().conv2d(256, 300, stride=stride)
    x = drawn(2, 256, *size)
    true = F.conv2d(x.double(), conv.weight.double(), conv.bias.double(), stride=stride, padding=1)
    assert error(conv(x), true) < 3e-6


@torch.no_grad()
@pytest.mark.parametrize("places", [5, 40, 100])
def test_wide_layers_over_time(places):
    conv = LayerFactory().temporal_conv(256, 300)
    x = drawn(2, 256, 7, places)
    true = F.conv2d(x.double(), conv.weight[..., 0].double(), conv.bias.double(), padding=(1, 0))
    assert error(conv(x), true) < 3e-6


def test_each_way_is_taken(monkeypatch):
    ways = []
    monkeypatch.setattr(cpu_convolutions, "_as_one_product", lambda *_, **__: ways.append("product"))
    monkeypatch.setattr(winograd, "conv2d", lambda *_: ways.append("winograd"))
    monkeypatch.setattr(winograd, "conv_over_time", lambda *_: ways.append("winograd over time"))
    weight, bias = drawn(256, 256, 3, 3), drawn(256)
    with torch.no_grad():
        for stride in (1, 2):
            for side in (8, 32):
                cpu_convolutions.conv2d(drawn(1, 256, side, side), weight, bias, stride)
        for places in (10, 40, 100):
            cpu_convolutions.conv_over_time(drawn(1, 256, 8, places), weight[..., :1], bias)
    assert ways == ["product", "winograd", "product", "product", "winograd over time"]


def test_torchs_own_are_left_what_is_theirs():
    x, weight, bias = drawn(1, 256, 8, 8), drawn(256, 256, 3, 3), drawn(256)
    assert cpu_convolutions.conv2d(x, weight, bias, 1) is None  # gradients
    with torch.no_grad():
        assert cpu_convolutions.conv2d(x, weight, bias, 1) is not None
        assert cpu_convolutions.conv2d(x[:, :255], weight[:, :255], bias, 1) is None
        assert cpu_convolutions.conv2d(x, weight[:255], bias[:255], 1) is None
        assert cpu_convolutions.conv2d(x.double(), weight.double(), bias.double(), 1) is None
        assert cpu_convolutions.conv2d(x.bfloat16(), weight.bfloat16(), bias.bfloat16(), 1) is None
        assert cpu_convolutions.conv2d(x.to("meta"), weight.to("meta"), bias.to("meta"), 1) is None


def test_gradients_are_those_of_torch():
    layer = TemporalConvLayer(256, groups=32, layers=2, make=LayerFactory())
    x = drawn(8, 256, 12, 12)
    with torch.no_grad():
        made = layer(x, num_frames=8)
    trained = layer(x, num_frames=8)
    trained.square().sum().backward()
    assert error(made, trained) < 3e-6
    assert all(parameter.grad is not None for parameter in layer.parameters())


@torch.no_grad()
def test_the_layout_is_kept_from_layer_to_layer():
    """Else norms copy what they are given, which costs a twentieth of a pass."""
    layer = TemporalConvLayer(256, groups=32, layers=2, make=LayerFactory())
    seen = []
    for norm in (layer.conv1[0], layer.conv2[0]):
        norm.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))
    layer(drawn(8, 256, 12, 12).contiguous(memory_format=CHANNELS_LAST), num_frames=8)
    assert [x.stride() for x in seen] == [(8 * 144 * 256, 1, 144 * 256, 256)] * 4
