"""The kernels against torch's own layers, by Triton's interpreter: no GPU is needed for what they compute."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from kernel_pass import laid_out_for_kernels
from tiny import config, inputs, random_model

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


def test_geglu_is_that_of_torch(interpreted):
    torch.manual_seed(0)
    projected = torch.randn(3, 7, 2 * 300) * 3
    values, gates = projected.chunk(2, dim=-1)
    torch.testing.assert_close(interpreted(kernels.geglu, projected), values * F.gelu(gates))


@torch.no_grad()
@pytest.mark.parametrize("attention", ["transformer", "self_attention"])
def test_a_whole_pass_is_that_of_torchs_layers(interpreted, attention):
    made_of = config(temporal_attention=attention)
    model, given = random_model(made_of), inputs(frames=2, width=4)
    made, calls = interpreted(laid_out_for_kernels, made_of, model.state_dict(), given)
    torch.testing.assert_close(made, model(*given), rtol=1e-4, atol=1e-5)
    norms = sum(isinstance(module, torch.nn.GroupNorm) for module in model.modules())
    feed_forwards = sum(name.endswith("ff") for name, _ in model.named_modules())
    assert calls == {"group_norm": norms, "geglu": feed_forwards}
