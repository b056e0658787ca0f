"""The kernels against torch's own layers, by Triton's interpreter: no GPU is needed for what they compute."""

import logging
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from kernel_pass import pass_by_kernels
from tiny import config, inputs, random_model

from dreamvideo_core import fused

kernels = pytest.importorskip("dreamvideo_core.kernels", reason="Triton comes with torch on Linux only", exc_type=ImportError)


@pytest.fixture(scope="module")
def interpreted():
    """Calls a function of kernels.py in a process that has Triton interpret what it would compile."""
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


@torch.no_grad()
@pytest.mark.parametrize("attention", ["transformer", "self_attention"])
def test_a_whole_pass_is_that_of_torchs_layers(interpreted, attention):
    made_of = config(temporal_attention=attention)
    model, given = random_model(made_of), inputs(frames=2, width=4)
    made, calls = interpreted(pass_by_kernels, made_of, model.state_dict(), given)
    torch.testing.assert_close(made, model(*given), rtol=1e-4, atol=1e-5)
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in model.modules())
    feed_forwards = sum(name.endswith("ff") for name, _ in model.named_modules())
    assert calls == {"group_norm": norms, "geglu": feed_forwards}


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


def test_where_triton_fails_its_kernels_are_not_used_and_the_log_says_why(monkeypatch, caplog):
    def fails(*_, **__):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(kernels, "group_norm", fails)
    with caplog.at_level(logging.WARNING):
        assert fused._kernels.__wrapped__(torch.device("cpu"), torch.float32) is None
    assert "Failed to find C compiler" in caplog.text
