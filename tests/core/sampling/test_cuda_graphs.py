"""Passes as CUDA graphs. Without a GPU: what is recorded when, and that nobody holds on to memory that graphs write over."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch
from recording import without_a_gpu
from tiny import config, inputs, random_model, random_pipeline

from dreamvideo_core.sampling import cuda_graphs
from dreamvideo_core.sampling.cuda_graphs import GraphedModel
from dreamvideo_core.sampling.guidance import Guidance
from dreamvideo_core.sampling.guided_step import GuidedModel
from dreamvideo_core.sampling.pipeline import Pipeline


@pytest.fixture
def recorded(monkeypatch) -> list[tuple[torch.Size, ...]]:
    """The shapes of what was recorded."""
    return without_a_gpu(cuda_graphs, monkeypatch)


@torch.no_grad()
@pytest.mark.parametrize("branch", [True, False])
@pytest.mark.parametrize("order", ["text_first", "image_first"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guided_steps_are_those_of_the_model(recorded, branch, order, every, together, dtype):
    """Guidance ends between them, and residuals of a step before are used again."""
    model = random_model(config(retention=branch)).to(dtype)
    latents, _, text, image = inputs(batch=2)
    texts = {True: text, False: torch.randn_like(text)}
    images = {True: image, False: torch.ones_like(image)} if branch else {}
    guidance = Guidance(3.0, 2.0, order, rescale=0.5, start=0.2, end=0.6)
    graphed, plain = (
        GuidedModel(m, texts, images, guidance, every, together, has_image=branch) for m in (GraphedModel(model), model)
    )
    for timestep in (900, 700, 500, 400, 200):
        torch.testing.assert_close(graphed(latents + timestep, timestep), plain(latents + timestep, timestep), rtol=0, atol=0)
    assert len(recorded) >= 2 + branch


@torch.no_grad()
def test_results_stay_what_they_are(recorded):
    latents, timesteps, text, _ = inputs()
    frames, model = latents.flatten(0, 1), GraphedModel(random_model())
    made, expected = (
        [m.encode(frames + number, timesteps, text, latents.shape[1]) for number in range(4)] for m in (model, model.model)
    )
    assert len(recorded) == 1
    assert all(torch.equal(a, b) for m, e in zip(made, expected, strict=True) for a, b in zip(m.skips, e.skips, strict=True))


@torch.no_grad()
def test_a_decoder_reads_skips_where_the_encoder_left_its_own(recorded, monkeypatch):
    """And residuals where the branch left them: beside a pass's own memory graphs have the skips once."""
    capture, places = cuda_graphs._Recorder.capture, {}

    def watched(recorder, function, inputs):
        graph, results = capture(recorder, function, inputs)
        places[function.function.__name__] = {t.data_ptr() for t in inputs}, {t.data_ptr() for t in results}
        return graph, results

    monkeypatch.setattr(cuda_graphs._Recorder, "capture", watched)
    model, (latents, timesteps, text, image) = GraphedModel(random_model()), inputs()
    frames, num_frames = latents.flatten(0, 1), latents.shape[1]
    for _ in range(2):
        made = []
        for offset in (1, 2):
            encoding = model.encode(frames + offset, timesteps, text, num_frames)
            made.append((encoding, model.retain(frames + offset, model.image_map(image), timesteps, text, num_frames)))
        for passes in made:
            torch.testing.assert_close(model.decode(*passes), model.model.decode(*passes), rtol=0, atol=0)
    read, _ = places["decode"]
    left = places["encode"][1] | places["retain"][1]
    assert len(read) == 2 * len(encoding.skips) + 4  # every input has a place of its own
    assert read <= left


@torch.no_grad()
def test_what_comes_once_is_not_recorded(recorded):
    model = GraphedModel(random_model())
    for length in (3, 4, 5):
        latents, timesteps, text, _ = inputs(frames=length)
        model.encode(latents.flatten(0, 1), timesteps, text, length)
    assert not recorded


@torch.no_grad()
def test_where_one_pass_cannot_be_recorded_all_are_launched_as_ever(recorded, monkeypatch, caplog):
    capture = cuda_graphs._Recorder.capture

    def no_memory(recorder, function, places):
        if function.function.__name__ == "decode":
            raise torch.cuda.OutOfMemoryError("tried to allocate 2.00 GiB")
        return capture(recorder, function, places)

    monkeypatch.setattr(cuda_graphs._Recorder, "capture", no_memory)
    model, (latents, _, text, image) = random_model(), inputs()
    graphed, plain = (GuidedModel(m, {True: text}, {True: image}, Guidance(1.0, 1.0)) for m in (GraphedModel(model), model))
    with caplog.at_level(logging.WARNING):
        for timestep in (900, 700, 500, 300):
            torch.testing.assert_close(graphed(latents, timestep), plain(latents, timestep), rtol=0, atol=0)
    assert len(recorded) == 2
    assert [record.getMessage() for record in caplog.records] == [
        "DreamVideo: CUDA graphs do not work here, so passes are launched one by one: tried to allocate 2.00 GiB"
    ]


@torch.no_grad()
def test_under_autocast_there_are_none(recorded, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    latents, timesteps, text, _ = inputs()
    model = GraphedModel(random_model())
    for _ in range(3):
        model.encode(latents.flatten(0, 1), timesteps, text, latents.shape[1])
    assert not recorded


def test_a_pipeline_keeps_its_graphs_for_clips_of_one_shape_and_weights_in_one_place(monkeypatch):
    monkeypatch.setattr(Pipeline, "uses_graphs", True)
    pipeline = random_pipeline()
    first = pipeline.passes((1, 3, 4, 2, 2))
    assert pipeline.passes((1, 3, 4, 2, 2)) is first
    graphed = pipeline.passes((1, 4, 4, 2, 2))
    assert graphed is not first
    for weight in (pipeline.model.unet.conv_in.weight, pipeline.model.retention.zero_conv_mid.bias):
        weight.data = weight.data.clone()
        moved = pipeline.passes((1, 4, 4, 2, 2))
        assert moved is not graphed
        graphed = moved


@torch.no_grad()
def test_graphs_end_with_the_last_reference_to_them(recorded):
    latents, timesteps, text, _ = inputs()
    graphed = GraphedModel(random_model())
    for _ in range(3):
        graphed.encode(latents.flatten(0, 1), timesteps, text, latents.shape[1])
    place = weakref.ref(next(iter(graphed._recorder.graphs.values()))[1])
    gc.disable()
    try:
        del graphed
        assert place() is None
    finally:
        gc.enable()


@torch.no_grad()
def test_where_the_autoencoder_lacks_memory_graphs_make_room(recorded, monkeypatch):
    monkeypatch.setattr(Pipeline, "uses_graphs", True)
    pipeline = random_pipeline()
    expected, decode = pipeline("a clip", steps=3), pipeline.decode

    def short_of_memory(latents):
        if pipeline._graphed is not None:
            raise torch.cuda.OutOfMemoryError("tried to allocate 2.00 GiB")
        return decode(latents)

    monkeypatch.setattr(pipeline, "decode", short_of_memory)
    torch.testing.assert_close(pipeline("a clip", steps=3), expected, rtol=0, atol=0)


def test_on_a_cpu_there_are_none():
    pipeline = random_pipeline()
    pipeline.cuda_graphs = True
    assert pipeline.passes((1, 3, 4, 2, 2)) is pipeline.model


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_clip_is_the_same_with_and_without_them(dtype):
    plain, graphed = (Pipeline.load(device="cuda", dtype=dtype, cuda_graphs=graphs) for graphs in (False, True))
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for options in ({}, {"num_frames": 5}, {"retention_every": 2, "guidance_end": 0.5}, {"seed": 1}):
        made, expected = (pipeline("the red circle moves left", picture, **options) for pipeline in (graphed, plain))
        torch.testing.assert_close(made, expected, rtol=0, atol=0.02)  # cuBLAS and cuDNN may choose other kernels


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@torch.no_grad()
def test_passes_of_a_gpu_in_any_order():
    """Graphs share memory: what one leaves there, and what callers hold, must not matter."""
    plain = random_model().cuda()
    graphed = GraphedModel(plain)
    latents, timesteps, text, image = (tensor.cuda() for tensor in inputs())
    frames, num_frames = latents.flatten(0, 1), latents.shape[1]
    for turn in range(4):
        pairs = []
        for offset in (turn, -turn):
            given = frames + offset, timesteps, text, num_frames
            retained = graphed.retain(given[0], plain.image_map(image), *given[1:])
            pairs.append((graphed.encode(*given), retained))
        for passes in reversed(pairs):
            torch.testing.assert_close(graphed.decode(*passes), plain.decode(*passes), rtol=1e-3, atol=1e-3)
        expected = plain.encode(frames - turn, timesteps, text, num_frames)
        torch.testing.assert_close(pairs[-1][0].mid, expected.mid, rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@torch.no_grad()
def test_a_capture_that_fails_leaves_the_gpu_as_it_was(caplog):
    recorder = cuda_graphs._Recorder()

    def waits(x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * float(x.sum()),)  # the CPU asks for a number: no graph can have that

    stream, x = torch.cuda.current_stream(), torch.ones(3, device="cuda")
    for _ in range(3):
        assert recorder.run(waits, x)[0].tolist() == [3.0, 3.0, 3.0]
    assert torch.cuda.current_stream() == stream and not torch.cuda.is_current_stream_capturing()
    assert len(caplog.records) == 1
