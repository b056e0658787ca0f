"""A picture to a clip by models whose U-Net sees it: DynamiCrafter's mechanism at small widths."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from tiny import DYNAMICRAFTER, TINY, config, random_pipeline
from torch import Tensor

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.models.config import ScheduleConfig
from dreamvideo_core.models.image_conditions import ImageConditions
from dreamvideo_core.models.image_encoder import prepare
from dreamvideo_core.sampling.chain import plan_stages, run_chain
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.weights.checkpoint import CheckpointError

ENDS = replace(DYNAMICRAFTER, unet=replace(DYNAMICRAFTER.unet, image_latents="ends"))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return random_pipeline(DYNAMICRAFTER)


@pytest.fixture(scope="module")
def ends() -> Pipeline:
    return random_pipeline(ENDS)


def picture(seed: int = 0, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_clip_by_the_models_own_defaults(pipeline):
    own = pipeline.config.sampling
    clip = pipeline("left", picture())
    assert clip.shape == (1, 3, 3, 16, 16) and clip.isfinite().all()
    named = {"num_frames": own.num_frames, "fps": 24, "eta": 1.0, "order": "image_first", "rescale": 0.7, "steps": 2}
    assert torch.equal(pipeline("left", picture(), **named), clip)
    assert torch.equal(pipeline("left", picture(), **pipeline.config.sampling_options()), clip)


@pytest.mark.parametrize("other", [
    {"prompt": "right"}, {"image": 1}, {"seed": 2}, {"negative": "right"}, {"fps": 3}, {"eta": 0.0}, {"rescale": 0.0},
    {"order": "text_first", "image_scale": 4.0}, {"steps": 3},
], ids=str)  # fmt: skip
def test_everything_that_is_given_matters(pipeline, other):
    def make(prompt="left", image=0, **options):
        return pipeline(prompt, picture(image), **{"seed": 1, "text_scale": 2.0, **options})

    assert not torch.allclose(make(**other), make(), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["repeat", "ends"])
def test_a_step_is_the_multi_condition_formula_over_evaluations_by_hand(pipeline, ends, kind):
    """The pictures' latents are in every evaluation, beside the tokens of the picture or of grey."""
    pipeline = pipeline if kind == "repeat" else ends
    images, lasts = torch.cat([picture(0), picture(1)]), torch.cat([picture(2), picture(3)])
    end = {} if kind == "repeat" else {"end_image": lasts}
    noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(5))
    made = pipeline(["left", "right"], images, **end, seed=5, steps=1, text_scale=5.0, image_scale=2.0, rescale=0.0, fps=12)

    def of_autoencoder(pixels: Tensor) -> Tensor:
        return pipeline.autoencoder.encode(pixels) * 0.18215

    first, last = of_autoencoder(images), of_autoencoder(lasts)
    between = first if kind == "repeat" else torch.zeros_like(first)
    latents = torch.stack([first, between, first if kind == "repeat" else last], 1).flatten(0, 1)
    size = pipeline.config.image_encoder.image_size

    def tokens(pixels: Tensor) -> Tensor:
        return pipeline.model.image_tokens(pipeline.image_encoder(prepare(pixels, size)))

    left, right, empty = pipeline.text_encoder.encode(["left", "right", ""])
    texts = {True: torch.stack([left, right]), False: torch.stack([empty, empty])}
    shown = {True: tokens(images), False: tokens(torch.zeros_like(images))}

    def f(text: bool, image: bool) -> Tensor:
        conditions = ImageConditions(latents, shown[image], torch.tensor([12.0, 12.0]))
        frames = rearrange(noise, "b t c h w -> (b t) c h w")
        encoding = pipeline.model.encode(frames, torch.tensor([999, 999]), texts[text], 3, conditions)
        return rearrange(pipeline.model.decode(encoding), "(b t) c h w -> b t c h w", b=2)

    uncond, with_image, cond = f(False, False), f(False, True), f(True, True)
    v = uncond + 2.0 * (with_image - uncond) + 5.0 * (cond - with_image)
    torch.testing.assert_close(made, pipeline.decode(-v / 0.7), rtol=1e-3, atol=1e-3)  # all noise: z_0 = -v / s


def test_tokens_are_made_once_a_run(pipeline, monkeypatch):
    shown = []
    encode = pipeline.image_encoder.encode
    monkeypatch.setattr(pipeline.image_encoder, "encode", lambda images: shown.append(images) or encode(images))
    pipeline("left", picture(), steps=5)
    assert [bool(images.any()) for images in shown] == [False, True]  # grey, and the picture


@pytest.mark.parametrize("schedule", [DYNAMICRAFTER.schedule, ScheduleConfig(timestep_spacing="leading", steps_offset=1)])
def test_sampling_begins_with_noise_alone(schedule, monkeypatch):
    """In 256 too, whose schedule would leave a trace of the picture: DynamiCrafter's own code begins so."""
    pipeline = random_pipeline(replace(DYNAMICRAFTER, schedule=schedule))
    starts, ddim = [], pipeline.schedule.ddim
    monkeypatch.setattr(
        pipeline.schedule, "ddim", lambda predict, noise, *rest: starts.append(noise) or ddim(predict, noise, *rest)
    )
    pipeline("left", picture(), seed=7)
    assert torch.equal(starts[0], torch.randn(1, 3, 4, 2, 2, generator=torch.Generator().manual_seed(7)))


def test_fresh_noise_depends_on_the_seed_alone(pipeline):
    assert torch.equal(pipeline("left", picture(), seed=3), pipeline("left", picture(), seed=3))
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(pipeline("left", picture(), seed=3), pipeline("left", picture(), seed=3))


def test_the_learned_scale_of_256(tmp_path):
    own = replace(DYNAMICRAFTER, unet=replace(DYNAMICRAFTER.unet, image_cross_attention="learned_scale"))
    pipeline = random_pipeline(own)
    plain = pipeline("left", picture())
    with torch.no_grad():
        for name, parameter in pipeline.model.named_parameters():
            if name.endswith("attn2.alpha"):
                parameter.fill_(3.0)
    assert not torch.allclose(pipeline("left", picture()), plain, atol=1e-4)


def test_two_pictures_and_a_loop(ends):
    first, last = picture(0), picture(1)
    there, back, loop = ends("a", first, end_image=last), ends("a", last, end_image=first), ends("a", first, end_image=first)
    assert not torch.allclose(there, back, atol=1e-3) and not torch.allclose(there, loop, atol=1e-3)


def test_whole_models_are_saved_and_loaded(tmp_path, pipeline):
    path = tmp_path / "model.safetensors"
    pipeline.save(path, dtype=torch.float32)
    loaded = Pipeline.load(path)
    assert loaded.config == pipeline.config
    assert torch.equal(loaded("left", picture()), pipeline("left", picture()))
    half = Pipeline.load(path, dtype=torch.bfloat16)
    assert next(half.image_encoder.parameters()).dtype == torch.bfloat16
    whole = pipeline("left", picture(), eta=0.0)
    assert 0 < (half("left", picture(), eta=0.0) - whole).norm() < 0.1 * whole.norm()


@pytest.mark.parametrize("missing", ["image_encoder", "text_encoder", "vae", "resampler"])
def test_a_file_that_lacks_a_part_is_refused_with_its_name(tmp_path, pipeline, missing):
    path = tmp_path / "pruned.safetensors"
    parts = {"unet", "resampler", "vae", "text_encoder", "image_encoder"} - {missing}
    pipeline.save(path, parts)
    with pytest.raises(CheckpointError, match=rf"pruned.safetensors has no {missing}; generating needs all parts"):
        Pipeline.load(path)


@pytest.mark.parametrize(("given", "words"), [
    ({}, "no image is given, but this model makes clips of a picture only"),
    ({"image": 0, "num_frames": 4}, "num_frames is 4; allowed: 3, for this model makes clips of that length alone"),
    ({"image": 0, "end_image": 1}, "an end_image is given, but this model takes no last picture"),
    ({"image": 0, "fps": 0}, "fps is 0; allowed: 1 to 1000"),
    ({"image": 0, "eta": 1.5}, "eta is 1.5; allowed: 0 to 1"),
])  # fmt: skip
def test_what_such_a_model_cannot_do(pipeline, given, words):
    pictures = {name: picture(given[name]) for name in ("image", "end_image") if name in given}
    with pytest.raises(InputError, match=words):
        pipeline("left", **{**given, **pictures})


@pytest.mark.parametrize(("end_image", "words"), [
    (None, "no end_image is given, but this model goes from a first to a last picture; give one, or the image again for"),
    (picture(1, 16, 24), "the end_image is 24 x 16, the clip 16 x 16"),
    (picture(1).expand(2, -1, -1, -1), "there are 2 end_images for 1 prompts"),
    (picture(1) * float("nan"), "end_image has values that are no numbers"),
])  # fmt: skip
def test_last_pictures_that_cannot_be(ends, end_image, words):
    with pytest.raises(InputError, match=words):
        ends("left", picture(), end_image=end_image)


@pytest.mark.parametrize("settings", [TINY, config(retention=False)], ids=["retention", "text"])
def test_other_models_are_told_no_frame_rate_and_no_end(settings):
    pipeline = random_pipeline(settings)
    with pytest.raises(InputError, match="fps is 8, but this model knows nothing of frame rates"):
        pipeline("left", fps=8)
    with pytest.raises(InputError, match="takes no last picture"):
        pipeline("left", picture() if settings.retention else None, end_image=picture())


@pytest.mark.parametrize("anchor", [False, True])
def test_in_a_chain_the_last_frame_is_the_next_picture(pipeline, anchor):
    made = run_chain(pipeline, plan_stages("left\nright", 4), picture(), seam="keep", anchor=anchor, text_scale=2.0)
    if anchor:
        assert made.frames.shape == (6, 3, 16, 16)
        return
    first = pipeline("left", picture(), seed=4, text_scale=2.0)[0]
    second = pipeline("right", first[-1:], seed=5, text_scale=2.0)[0]
    assert torch.equal(made.frames, torch.cat([first, second]))


def test_every_stage_of_a_chain_ends_at_the_last_picture(ends):
    made = run_chain(ends, plan_stages("left\nright", 4), picture(), seam="keep", end_image=picture(1))
    first = ends("left", picture(), end_image=picture(1), seed=4)[0]
    second = ends("right", first[-1:], end_image=picture(1), seed=5)[0]
    assert torch.equal(made.frames, torch.cat([first, second]))


def test_a_chain_without_a_picture_says_so(pipeline):
    with pytest.raises(InputError, match="no image is given"):
        run_chain(pipeline, plan_stages("left\nright", 0))
