"""A picture and a sentence to a clip."""

from dataclasses import replace

import pytest
import torch
from schedules import DYNAMICRAFTER, I2VGEN
from tiny import TINY, random_pipeline

from dreamvideo_core.models import precision
from dreamvideo_core.sampling.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return random_pipeline()


def picture(seed: int = 0, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def watched_starts(pipeline: Pipeline, monkeypatch) -> list[torch.Tensor]:
    """Where each clip's sampling begins, from now on."""
    starts, ddim = [], pipeline.schedule.ddim

    def watched(predict, noise, *arguments):
        starts.append(noise)
        return ddim(predict, noise, *arguments)

    monkeypatch.setattr(pipeline.schedule, "ddim", watched)
    return starts


def test_the_defaults_are_the_models_own(pipeline):
    steps = []
    clip = pipeline("a clip", on_step=lambda done, total: steps.append((done, total)))
    assert clip.shape == (1, 3, 3, 16, 16)
    assert steps == [(1, 2), (2, 2)]
    assert clip.amin() >= -1 and clip.amax() <= 1


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 8, 8), (2, 24, 40)])
def test_sizes(pipeline, frames, height, width):
    assert pipeline("a", num_frames=frames, height=height, width=width).shape == (1, frames, 3, height, width)
    assert pipeline("a", picture(0, height, width), num_frames=frames).shape == (1, frames, 3, height, width)


def test_the_seed_the_text_and_the_image_matter_and_nothing_else_does(pipeline):
    def make(prompt="left", image=0, **options):
        return pipeline(prompt, None if image is None else picture(image), **{"seed": 1, "text_scale": 2.0, **options})

    clip = make()
    assert torch.equal(make(), clip)
    for other in (
        {"prompt": "right"}, {"image": 1}, {"image": None}, {"seed": 2}, {"negative": "right"},
        {"order": "image_first", "image_scale": 4.0}, {"steps": 3},
    ):  # fmt: skip
        assert not torch.allclose(make(**other), clip, atol=1e-3), other


def test_without_an_image_the_image_scale_does_nothing(pipeline):
    one, two = (pipeline("left", text_scale=3.0, image_scale=scale) for scale in (1.0, 9.0))
    torch.testing.assert_close(one, two)


def test_without_a_text_the_text_scale_does_nothing(pipeline):
    one, two = (pipeline("", picture(), text_scale=scale, image_scale=3.0) for scale in (1.0, 9.0))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_white_is_no_image(pipeline, monkeypatch):
    """But for what a picture leaves in the noise."""
    monkeypatch.setattr(pipeline.schedule, "terminal_signal", torch.zeros_like)
    options = {"text_scale": 3.0, "image_scale": 3.0}
    white = torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(pipeline("left", white, **options), pipeline("left", **options), rtol=1e-4, atol=1e-4)


def test_noise_keeps_some_of_each_pictures_mean(pipeline, monkeypatch):
    """What is left of it by the schedule, as in the clips that a model is trained on; of text alone there is none."""
    starts = watched_starts(pipeline, monkeypatch)
    images = torch.cat([picture(0), picture(1)])
    pipeline(["left", "right"], images)
    pipeline(["left", "right"])
    share = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).prod().sqrt()
    means = pipeline.encode(images[:, None]).mean((1, 3, 4))
    torch.testing.assert_close(starts[0] - starts[1], (share * means)[:, None, :, None, None].expand_as(starts[0]))


@pytest.mark.parametrize("schedule", [replace(DYNAMICRAFTER, base_scale=0.3), I2VGEN], ids=["dynamicrafter", "i2vgen"])
def test_clips_begin_with_noise_alone_where_the_schedule_ends_so(schedule, tmp_path):
    random_pipeline(replace(TINY, schedule=schedule)).save(tmp_path / "model.safetensors", dtype=torch.float32)
    scheduled = Pipeline.load(tmp_path / "model.safetensors")
    assert scheduled.schedule.config == schedule
    clip = scheduled("left", picture(), text_scale=3.0, rescale=0.7, steps=3)
    assert clip.isfinite().all() and clip.std() > 0


def test_several_prompts_are_several_clips(pipeline):
    images = torch.cat([picture(0), picture(1)])
    assert pipeline(["left", "right"], images).shape == (2, 3, 3, 16, 16)


def test_sizes_that_cannot_be(pipeline):
    with pytest.raises(ValueError, match=r"width is 20; allowed: multiples of 8"):
        pipeline("a", width=20)


def test_latents_are_on_the_scale_of_the_model(pipeline):
    frames = torch.rand(2, 3, 3, 16, 24) * 2 - 1
    latents = pipeline.encode(frames)
    assert latents.shape == (2, 3, 4, 2, 3)
    single = pipeline.autoencoder.encode(frames[1, 2:]) * 0.18215
    torch.testing.assert_close(latents[1, 2:], single, rtol=1e-4, atol=1e-4)
    assert pipeline.decode(latents).shape == frames.shape


def test_frames_go_through_the_autoencoder_together_or_one_by_one(pipeline, monkeypatch):
    frames = torch.rand(2, 3, 3, 16, 24) * 2 - 1
    latents = pipeline.encode(frames)
    pixels = pipeline.decode(latents)
    monkeypatch.setattr("dreamvideo_core.sampling.pipeline._together", lambda rows, scale=1: 4)
    torch.testing.assert_close(pipeline.encode(frames), latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pipeline.decode(latents), pixels, rtol=1e-4, atol=1e-5)


def test_an_untrained_branch_changes_nothing(monkeypatch):
    """But for what a picture leaves in the noise."""
    torch.manual_seed(0)
    with_branch = Pipeline.build(TINY).to("cpu")
    monkeypatch.setattr(with_branch.schedule, "terminal_signal", torch.zeros_like)
    torch.manual_seed(0)
    without = Pipeline.build(replace(TINY, retention=None)).to("cpu")
    without.load_parts({"unet": with_branch.model.unet.state_dict(), "vae": with_branch.autoencoder.state_dict()})
    without.text_encoder.load_file_state(with_branch.text_encoder.file_state())
    assert torch.equal(with_branch("left", picture(), text_scale=3.0, image_scale=3.0), without("left", text_scale=3.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_makes_nearly_the_same_clip(tmp_path, pipeline, dtype):
    whole = pipeline("red", picture())
    pipeline.save(tmp_path / "model.safetensors", dtype=torch.float32)
    loaded = Pipeline.load(tmp_path / "model.safetensors", dtype=dtype)
    for part in (loaded.model, loaded.text_encoder):
        assert {weight.dtype for weight in part.parameters()} == {dtype}
    assert {weight.dtype for weight in loaded.autoencoder.parameters()} == {torch.float32}
    half = loaded("red", picture())
    assert half.dtype == torch.float32
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()
    assert torch.equal(random_pipeline().to("cpu", dtype)("red", picture()), half)


def test_a_large_model_is_loaded_in_the_precision_that_is_best(tmp_path, pipeline, monkeypatch):
    path = tmp_path / "model.safetensors"
    pipeline.save(path, dtype=torch.float32)
    whole = pipeline("red", picture())
    parameters = sum(weight.numel() for weight in pipeline.model.parameters())
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: True)
    assert torch.equal(Pipeline.load(path)("red", picture()), whole)
    monkeypatch.setattr(precision, "LARGE", parameters)
    assert torch.equal(Pipeline.load(path)("red", picture()), whole)
    monkeypatch.setattr(precision, "LARGE", parameters - 1)
    assert torch.equal(Pipeline.load(path, dtype=torch.float32)("red", picture()), whole)
    chosen = Pipeline.load(path)
    assert {weight.dtype for weight in chosen.model.parameters()} == {torch.bfloat16}
    assert torch.equal(chosen("red", picture()), Pipeline.load(path, dtype=torch.bfloat16)("red", picture()))
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: False)
    assert torch.equal(Pipeline.load(path)("red", picture()), whole)


def test_the_autoencoder_of_another_device_is_in_its_precision(tmp_path, pipeline):
    pipeline.save(tmp_path / "model.safetensors")
    for dtype, kept in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        loaded = Pipeline.load(tmp_path / "model.safetensors", "meta", dtype)
        assert {weight.dtype for weight in loaded.autoencoder.parameters()} == {kept}


def test_parts_may_differ_in_precision(pipeline):
    whole = pipeline("red", picture())
    mixed = random_pipeline()
    mixed.model.to(torch.bfloat16)
    assert 0 < (mixed("red", picture()) - whole).norm() < 0.05 * whole.norm()
