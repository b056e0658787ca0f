"""Passes as CUDA graphs. Without a GPU: what is captured when, and that nobody holds on to memory that graphs write over."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from tiny import config, inputs, random_model, random_pipeline
from torch import Tensor, nn

from dreamvideo_core.graphs import GraphedModel, GraphedPasses
from dreamvideo_core.guidance import Guidance
from dreamvideo_core.pipeline import GuidedModel, Pipeline


@pytest.fixture
def captured(monkeypatch) -> list[tuple[Callable, tuple[Tensor, ...], bool]]:
    """What torch was asked to capture: function, sample inputs, and whether autocast would have kept weights.

    What stands for a graph has its memory as a graph has: one place for its inputs, one for its results.
    """
    captures = []

    def capture(function: Callable, samples: tuple[Tensor, ...], **options) -> Callable:
        captures.append((function, samples, torch.is_autocast_cache_enabled()))
        made = function(*samples)
        places = made if isinstance(made, tuple) else (made,)

        def replay(*inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
            for place, tensor in zip(samples, inputs, strict=True):
                place.copy_(tensor)
            again = function(*samples)
            for place, tensor in zip(places, again if isinstance(again, tuple) else (again,), strict=True):
                place.data.copy_(tensor.data)
            return made

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    return captures


def test_one_capture_for_every_set_of_shapes(captured):
    line = nn.Linear(3, 2)
    passes = GraphedPasses(lambda x, scale: scale * line(x), line)
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


@torch.no_grad()
@pytest.mark.parametrize("branch", [True, False])
@pytest.mark.parametrize("order", ["text_first", "image_first"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guided_steps_are_those_of_the_model(captured, branch, order, every, dtype):
    """Guidance ends between them, and residuals of a step before are used again."""
    model = random_model(config(retention=branch)).to(dtype)
    latents, _, text, image = inputs(batch=2)
    texts = {True: text, False: torch.randn_like(text)}
    images = {True: image, False: torch.ones_like(image)} if branch else {}
    guidance = Guidance(3.0, 2.0, order, rescale=0.5, start=0.2, end=0.6)
    graphed, plain = (GuidedModel(m, texts, images, guidance, every, has_image=branch) for m in (GraphedModel(model), model))
    for timestep in (900, 700, 500, 400, 200):
        torch.testing.assert_close(graphed(latents + timestep, timestep), plain(latents + timestep, timestep), rtol=0, atol=0)
    assert len(captured) == 2 + branch


@torch.no_grad()
def test_results_stay_what_they_are(captured):
    latents, timesteps, text, _ = inputs()
    frames, model = latents.flatten(0, 1), GraphedModel(random_model())
    made = [model.encode(frames + number, timesteps, text, latents.shape[1]) for number in range(4)]
    assert len(captured) == 1
    expected = [model.model.encode(frames + number, timesteps, text, latents.shape[1]) for number in range(4)]
    assert all(torch.equal(a, b) for m, e in zip(made, expected, strict=True) for a, b in zip(m.skips, e.skips, strict=True))


@torch.no_grad()
def test_what_comes_once_is_not_recorded(captured):
    model = GraphedModel(random_model())
    for length in (3, 4, 5):
        latents, timesteps, text, _ = inputs(frames=length)
        model.encode(latents.flatten(0, 1), timesteps, text, length)
    assert not captured


@torch.no_grad()
def test_without_enough_memory_passes_are_launched_as_ever(captured, monkeypatch, caplog):
    def capture(*_, **__):
        raise torch.cuda.OutOfMemoryError("tried to allocate 2.00 GiB")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    latents, timesteps, text, _ = inputs()
    model, frames = random_model(), latents.flatten(0, 1)
    graphed = GraphedModel(model)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            made = graphed.encode(frames, timesteps, text, latents.shape[1])
            torch.testing.assert_close(made.mid, model.encode(frames, timesteps, text, latents.shape[1]).mid, rtol=0, atol=0)
    assert [record.getMessage() for record in caplog.records] == [
        "DreamVideo: too little memory for CUDA graphs, so passes are launched one by one: tried to allocate 2.00 GiB"
    ]


def test_a_pipeline_keeps_its_graphs_for_clips_of_one_shape_and_weights_in_one_place(captured, monkeypatch):
    monkeypatch.setattr(Pipeline, "uses_graphs", True)
    pipeline = random_pipeline()
    graphs = pipeline.passes((1, 3, 4, 2, 2))
    assert pipeline.passes((1, 3, 4, 2, 2)) is graphs
    assert pipeline.passes((1, 4, 4, 2, 2)) is not graphs
    graphs = pipeline.passes((1, 3, 4, 2, 2))
    pipeline.model.double()
    assert pipeline.passes((1, 3, 4, 2, 2)) is not graphs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_the_same_with_and_without_them(dtype):
    plain, graphed = (Pipeline.load(device="cuda", cuda_graphs=graphs) for graphs in (False, True))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for pipeline in (plain, graphed):
        pipeline.model.to(dtype)
    for options in ({}, {"num_frames": 5}, {"retention_every": 2, "guidance_end": 0.5}, {"seed": 1}):
        made, expected = (pipeline("the red circle moves left", picture, **options) for pipeline in (graphed, plain))
        torch.testing.assert_close(made, expected, rtol=0, atol=0.02)  # cuBLAS and cuDNN may choose other kernels
