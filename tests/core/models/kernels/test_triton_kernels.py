"""The kernels against torch's own layers, by Triton's interpreter: no GPU is needed for what they compute."""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from kernel_pass import pass_by_kernels
from tiny import config, inputs, random_model

from dreamvideo_core.models.kernels import fused
from dreamvideo_core.models.unet import is_temporal

kernels = pytest.importorskip(
    "dreamvideo_core.models.kernels.triton_kernels", reason="Triton comes with torch on Linux only", exc_type=ImportError
)


@pytest.fixture(scope="module")
def interpreted():
    """Calls a function of triton_kernels.py in a process that has Triton interpret what it would compile."""
    with patch.dict(os.environ, TRITON_INTERPRET="1"), ProcessPoolExecutor(1, get_context("spawn")) as process:
        yield lambda call, *arguments: process.submit(call, *arguments).result()


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(
    "shape, groups",
    [((2, 12, 3, 5), 4), ((1, 40, 7, 300), 4), ((3, 6, 1, 1), 6), ((2, 60, 2, 3), 2)],
    ids=["groups of three", "more than one tile", "one value a group", "groups of thirty"],
)
def test_group_norm_is_that_of_torch(interpreted, shape, groups, silu):
    torch.manual_seed(0)
    x = (torch.randn(shape) * 3 + 100).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(shape[1]), torch.randn(shape[1])
    expected = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-5)
    expected = F.silu(expected) if silu else expected
    made = interpreted(kernels.group_norm, x, groups, weight, bias, 1e-5, silu)
    torch.testing.assert_close(made, expected.float(), rtol=1e-4, atol=1e-4)
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_geglu_is_that_of_torch(interpreted, dtype):
    torch.manual_seed(0)
    projected = (torch.randn(3, 7, 2 * 300) * 3).to(dtype)
    values, gates = projected.float().chunk(2, dim=-1)
    torch.testing.assert_close(interpreted(kernels.geglu, projected), (values * F.gelu(gates)).to(dtype))


def test_half_precision_is_rounded_once(interpreted):
    torch.manual_seed(0)
    x = torch.randn(2, 12, 3, 5).half().contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 12).half()
    expected = F.silu(F.group_norm(x.float(), 4, weight.float(), bias.float(), 1e-5)).half()
    torch.testing.assert_close(interpreted(kernels.group_norm, x, 4, weight, bias, 1e-5, True), expected)


@pytest.mark.parametrize("shape", [(3, 7, 320), (70, 48), (2, 1)], ids=["not a power of two", "many tokens", "one channel"])
def test_layer_norm_is_that_of_torch(interpreted, shape):
    torch.manual_seed(0)
    x, (weight, bias) = torch.randn(shape) * 3 + 20, torch.randn(2, shape[-1])
    expected = F.layer_norm(x.double(), shape[-1:], weight.double(), bias.double(), 1e-5).float()
    torch.testing.assert_close(interpreted(kernels.layer_norm, x, weight, bias, 1e-5), expected, rtol=1e-4, atol=1e-4)
    added = torch.randn(shape)
    total, made = interpreted(kernels.add_layer_norm, x - added, added, weight, bias, 1e-5)
    torch.testing.assert_close(total, x - added + added, rtol=0, atol=0)
    torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("frames", "places", "heads", "of_head"),
    [(8, 21, 2, 64), (5, 13, 3, 8), (1, 3, 1, 16), (24, 5, 2, 40), (70, 2, 1, 16)],
    ids=["eight frames", "a clip that fills no tile", "one frame", "heads of forty", "more than a tile"],
)
def test_attention_over_time_is_that_of_torch(interpreted, frames, places, heads, of_head):
    torch.manual_seed(0)
    given = torch.randn(3, 2, frames, places, heads * of_head) * 2
    each = rearrange(given, "k b t n (h d) -> k b n h t d", h=heads)
    expected = rearrange(F.scaled_dot_product_attention(*each.double()), "b n h t d -> b t n (h d)").float()
    made = interpreted(kernels.attention_over_time, *given, heads)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["transformer", "self_attention"])
def test_a_whole_pass_is_that_of_torchs_layers(interpreted, attention):
    made_of = config(temporal_attention=attention)
    model, given = random_model(made_of), inputs(frames=2, width=4)
    made, calls = interpreted(pass_by_kernels, made_of, model.state_dict(), given)
    torch.testing.assert_close(made, model(*given), rtol=1e-4, atol=1e-5)
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in model.modules())
    blocks = sum(name.endswith("ff") for name, _ in model.named_modules())
    over_time = sum(is_temporal(name) and name.endswith("to_q") for name, _ in model.named_modules())
    assert calls == {
        "group_norm": norms, "layer_norm": blocks, "add_layer_norm": 2 * blocks, "geglu": blocks,
        "attention_over_time": over_time,
    }  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="what Triton compiles runs on a GPU only")
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_compiled_kernels_are_as_near_to_the_truth_as_torch(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 320, 32, 32, device="cuda", dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(2, 320, device="cuda", dtype=dtype)
    truth = F.silu(F.group_norm(x.double(), 32, weight.double(), bias.double(), 1e-5))
    error, of_torch = (
        (made.double() - truth).norm()
        for made in (kernels.group_norm(x, 32, weight, bias, 1e-5, True), F.silu(F.group_norm(x, 32, weight, bias, 1e-5)))
    )
    assert error < 3 * of_torch
    projected = torch.randn(64, 2 * 300, device="cuda", dtype=dtype)
    torch.testing.assert_close(kernels.geglu(projected), fused.geglu(projected))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    tokens = torch.randn(700, 320, device="cuda", dtype=dtype)
    of_torch = F.layer_norm(tokens, (320,), weight, bias, 1e-5)
    torch.testing.assert_close(kernels.layer_norm(tokens, weight, bias, 1e-5), of_torch, **close)
    total, again = kernels.add_layer_norm(tokens - 1, torch.ones_like(tokens), weight, bias, 1e-5)
    torch.testing.assert_close(total, tokens - 1 + torch.ones_like(tokens), rtol=0, atol=0)
    torch.testing.assert_close(again, F.layer_norm(total, (320,), weight, bias, 1e-5), **close)
    given = torch.randn(3, 2, 8, 100, 320, device="cuda", dtype=dtype)
    each = rearrange(given, "k b t n (h d) -> k b n h t d", h=5)
    expected = rearrange(F.scaled_dot_product_attention(*each.double()), "b n h t d -> b t n (h d)").to(dtype)
    torch.testing.assert_close(kernels.attention_over_time(*given, 5), expected, **close)


@torch.no_grad()
def test_long_clips_attend_by_torchs_attention(monkeypatch):
    monkeypatch.setattr(fused, "kernels_for", lambda x, least=0: kernels)
    short, long = (torch.zeros(1, 2, n, 6).contiguous(memory_format=torch.channels_last) for n in (64, 65))
    assert fused.attends_in_place(short) and not fused.attends_in_place(long)


@torch.no_grad()
def test_weights_of_convolutions_are_laid_out_where_kernels_are(monkeypatch):
    """The same numbers; in float32 they stay."""
    monkeypatch.setattr(fused, "_kernels", lambda device, dtype: kernels)
    given = inputs(frames=2, width=4)
    for dtype, moved in ((torch.float32, False), (torch.bfloat16, True)):
        model = random_model().to(dtype)
        before, weights = model(*given), {name: tensor.clone() for name, tensor in model.state_dict().items()}
        fused.lay_out_weights(model, torch.device("cuda"))
        torch.testing.assert_close(model(*given), before, rtol=0.05, atol=0.05)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
        conv, over_time = model.unet.down_blocks[0].resnets[0].conv1, model.unet.down_blocks[0].temp_convs[0].conv1[-1]
        assert conv.weight.is_contiguous(memory_format=torch.channels_last) == moved
        assert over_time.weight[..., 0].is_contiguous(memory_format=torch.channels_last) == moved


def test_where_triton_fails_its_kernels_are_not_used_and_the_log_says_why(monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernels, "group_norm", fails)
    with caplog.at_level(logging.WARNING):
        assert fused._kernels.__wrapped__(torch.device("cpu"), torch.float32) is None
    assert "Failed to find C compiler" in caplog.text
