"""Passes as CUDA graphs, as far as a CPU can tell: what is captured when. That the numbers stay the same was seen on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dreamvideo_core.training.cuda_graphs import GraphedPasses


@pytest.fixture
def captured(monkeypatch) -> list[tuple[nn.Module, tuple[Tensor, ...], bool]]:
    """What torch was asked to capture: module, sample inputs, and whether autocast would have kept weights."""
    captures = []

    def capture(module: nn.Module, samples: tuple[Tensor, ...], **options) -> nn.Module:
        captures.append((module, samples, torch.is_autocast_cache_enabled()))
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    return captures


def test_one_capture_for_every_set_of_shapes(captured):
    line = nn.Linear(3, 2)
    passes = GraphedPasses(line, lambda x, scale: scale * line(x))
    for batch in (4, 5, 4):
        x, scale = torch.randn(batch, 3), torch.randn(batch, 1)
        assert torch.equal(passes(x, scale), scale * line(x))
    assert [tuple(x.shape for x in samples) for _, samples, _ in captured] == [((4, 3), (4, 1)), ((5, 3), (5, 1))]


def test_every_graph_has_a_module_of_its_own_with_all_weights(captured):
    line = nn.Linear(3, 2)
    passes = GraphedPasses(line, line)
    passes(torch.randn(4, 3)), passes(torch.randn(5, 3))
    (first, _, _), (second, _, _) = captured
    assert first is not second
    assert [set(module.parameters()) for module in (first, second)] == [set(line.parameters())] * 2


def test_a_capture_has_inputs_of_its_own_and_no_kept_casts(captured):
    line, x = nn.Linear(3, 2), torch.randn(4, 3)
    GraphedPasses(line, line)(x)
    ((_, (sample,), keeps),) = captured
    assert torch.equal(sample, x) and sample.data_ptr() != x.data_ptr()
    assert not keeps and torch.is_autocast_cache_enabled()
