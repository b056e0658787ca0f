import pytest
import torch
import torch.nn.functional as F
from deviation import relative_error

from dreamvideo_core import winograd


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=generator)


@pytest.fixture(params=["whole", "in parts"])
def parts(request, monkeypatch):
    if request.param == "in parts":
        monkeypatch.setattr(winograd, "_INPUTS", 500)
        monkeypatch.setattr(winograd, "_TAPS", 150)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (2, 5, 7, 9), (2, 4, 4, 6), (3, 5, 40, 41), (64, 3, 4, 4)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_two_dimensions(shape, layout, drawn):
    x, weight, bias = drawn(*shape).contiguous(memory_format=layout), drawn(6, shape[1], 3, 3), drawn(6)
    made = winograd.conv2d(x, weight, bias)
    true = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    assert made.shape == true.shape
    assert relative_error(made, true) < 3e-6
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("shape", [(1, 5, 1, 3), (2, 5, 7, 9), (3, 4, 8, 6), (1, 5, 16, 100)])
def test_over_time(shape, drawn):
    x, weight, bias = drawn(*shape), drawn(6, shape[1], 3, 1), drawn(6)
    made = winograd.conv_over_time(x, weight, bias)
    true = F.conv2d(x.double(), weight.double(), bias.double(), padding=(1, 0))
    assert made.shape == true.shape
    assert relative_error(made, true) < 3e-6
    assert made.is_contiguous(memory_format=torch.channels_last)


def test_matrices_made_in_inference_mode_serve_elsewhere(drawn):
    winograd._transforms.cache_clear()
    x, weight, bias = drawn(1, 3, 8, 8), drawn(3, 3, 3, 3), drawn(3)
    with torch.inference_mode():
        made = winograd.conv2d(x, weight, bias)
    with torch.no_grad():
        assert torch.equal(winograd.conv2d(x, weight, bias), made)
