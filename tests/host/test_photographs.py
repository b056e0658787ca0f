"""A model that sees the picture by CLIP and by its latents (DynamiCrafter's mechanism, small and random) in ComfyUI's nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from chains import ONE, PICTURE, THREE, TWO, chain, sampled
from comfy_host.errors import ExecutionFailed
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server
from graphs import image_to_video, node
from safetensors.torch import load_file
from sampling import sample
from tiny import DYNAMICRAFTER

from dreamvideo_core.sampling.pipeline import Pipeline

FRAMES, SIZE, STEPS = 3, 32, 4
KINDS = {
    "512": DYNAMICRAFTER,
    "interp": replace(DYNAMICRAFTER, unet=replace(DYNAMICRAFTER.unet, image_latents="ends")),
    "256": replace(
        DYNAMICRAFTER,
        unet=replace(DYNAMICRAFTER.unet, image_cross_attention="learned_scale"),
        schedule=type(DYNAMICRAFTER.schedule)(),
        sampling=replace(DYNAMICRAFTER.sampling, rescale=0.0, eta=0.0, fps=3),
    ),
}


def random_weights(pipeline: Pipeline) -> Pipeline:
    torch.manual_seed(0)
    for module in (pipeline.model, pipeline.text_encoder, pipeline.image_encoder):
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.15)
    return pipeline


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def core(host: InProcessComfyUI, kind: str):
    """A pipeline with random weights; its file is there for Load DreamVideo."""
    pipelines, configs = host.module("dreamvideo_core.sampling.pipeline"), host.module("dreamvideo_core.models.config")
    torch.manual_seed(0)
    pipeline = pipelines.Pipeline.build(configs.ModelConfig.from_dict(KINDS[kind].to_dict()))
    for weight in (
        w for module in (pipeline.model, pipeline.text_encoder, pipeline.image_encoder) for w in module.parameters()
    ):
        torch.nn.init.normal_(weight, std=0.15)
    pipeline.save(host.base.models / "dreamvideo" / f"photographs_{kind}.safetensors", dtype=torch.float32)
    return pipeline


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI, core, kind: str) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=f"photographs_{kind}.safetensors", weight_dtype="fp32")


def picture(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(seed))


def conditioned(host: InProcessComfyUI, loaded: tuple, kind: str, text: str = "a cat walks", **inputs) -> tuple:
    _, clip, vae, clip_vision = loaded
    texts = [host.call("CLIPTextEncode", clip=clip, text=t)[0] for t in (text, "")]
    given = {"image": picture(), "vae": vae, "clip_vision": clip_vision, "frames": FRAMES}
    if kind == "interp":
        given["end_image"] = picture(1)
    given = {name: value for name, value in (given | inputs).items() if value is not None}
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], width=SIZE, height=SIZE, fit="crop",
        **{"batch_size": 1, "strength": 1.0, "start": 0.0, "end": 1.0, **given},
    )  # fmt: skip


def decoded(host: InProcessComfyUI, loaded: tuple, samples: torch.Tensor) -> torch.Tensor:
    return host.call("VAEDecode", vae=loaded[2], samples={"samples": samples})[0]


@pytest.mark.parametrize(
    ("order", "scales"), [("image_first", (3.0, 2.0)), ("text_first", (3.0, 2.0)), ("image_first", (2.0, 2.0))]
)
def test_a_clip_is_the_cores(host, core, loaded, kind, order, scales):
    rescale = core.config.sampling.rescale
    samples = sample(
        host, loaded[0], conditioned(host, loaded, kind), steps=STEPS, order=order, text_scale=scales[0],
        image_scale=scales[1], rescale=rescale,
    )  # fmt: skip
    first, last = (x.movedim(-1, 1) * 2 - 1 for x in (picture(), picture(1)))
    expected = core(
        "a cat walks", first, end_image=last if kind == "interp" else None, steps=STEPS, order=order, text_scale=scales[0],
        image_scale=scales[1], rescale=rescale, eta=0.0, seed=3,
    )  # fmt: skip
    torch.testing.assert_close(decoded(host, loaded, samples), (expected[0].movedim(1, -1) + 1) / 2, rtol=0, atol=2e-2)


def alone(host: InProcessComfyUI, loaded: tuple, given: tuple, text_scale: float, image_scale: float) -> torch.Tensor:
    """Latents of f(t,i), f(t,0) or f(0,0) by itself: scales of 0 and 1 leave one evaluation."""
    scales = {"text_scale": text_scale, "image_scale": image_scale}
    return sample(host, loaded[0], given, steps=STEPS, order="text_first", **scales)


def test_strength_is_between_the_picture_and_grey(host, loaded, kind):
    """The picture's latents stay in either case."""
    given = conditioned(host, loaded, kind)
    with_picture, without = alone(host, loaded, given, 1.0, 1.0), alone(host, loaded, given, 1.0, 0.0)
    assert (with_picture - without).norm() > 1e-3
    weak = alone(host, loaded, conditioned(host, loaded, kind, strength=0.0), 1.0, 1.0)
    torch.testing.assert_close(weak, without, rtol=1e-4, atol=1e-4)
    half = alone(host, loaded, conditioned(host, loaded, kind, strength=0.5), 1.0, 1.0)
    apart = (with_picture - without).norm()
    assert all(apart / 4 < (half - end).norm() < apart for end in (with_picture, without))


def test_the_frame_rate_is_told(host, loaded, kind, core):
    own = alone(host, loaded, conditioned(host, loaded, kind), 1.0, 1.0)
    said = alone(host, loaded, conditioned(host, loaded, kind, fps=core.config.sampling.fps), 1.0, 1.0)
    other = alone(host, loaded, conditioned(host, loaded, kind, fps=100), 1.0, 1.0)
    torch.testing.assert_close(said, own, rtol=0, atol=0)
    assert not torch.allclose(other, own, atol=1e-3)


def test_stock_samplers_guide_by_the_text_alone(host, loaded, kind):
    positive, negative, latent = conditioned(host, loaded, kind)
    options = {"seed": 3, "steps": STEPS, "sampler_name": "ddim", "scheduler": "simple", "denoise": 1.0}
    (made,) = host.call(
        "KSampler", model=loaded[0], cfg=2.0, positive=positive, negative=negative, latent_image=latent, **options
    )
    scales = {"order": "image_first", "text_scale": 2.0, "image_scale": 1.0}
    ours = sample(host, loaded[0], (positive, negative, latent), steps=STEPS, **scales)
    torch.testing.assert_close(made["samples"], ours, rtol=1e-3, atol=1e-3)


def test_tokens_are_made_once_a_run_and_encodings_once_for_each_text_and_view(host, loaded, kind, monkeypatch):
    unet, views, encoded = loaded[0].model.diffusion_model, [], []
    resample, encode = unet.resampler.forward, unet.encode
    monkeypatch.setattr(unet.resampler, "forward", lambda hidden: views.append(len(hidden)) or resample(hidden))
    monkeypatch.setattr(unet, "encode", lambda x, t, *args, **more: encoded.append(len(t)) or encode(x, t, *args, **more))
    sample(host, loaded[0], conditioned(host, loaded, kind), steps=STEPS, text_scale=3.0, image_scale=2.0)
    assert views == [2]  # the picture and grey
    assert encoded == [3] * STEPS


def test_every_clip_has_its_picture(host, loaded, kind):
    """Two clips at once are the two clips one by one; noise differs, so the second is compared by its own start."""
    pictures = torch.cat([picture(), picture(2)])
    ends = {} if kind != "interp" else {"end_image": torch.cat([picture(1), picture(1)])}
    both = conditioned(host, loaded, kind, image=pictures, batch_size=2, **ends)
    made = alone(host, loaded, both, 1.0, 1.0)
    first = alone(host, loaded, conditioned(host, loaded, kind), 1.0, 1.0)
    torch.testing.assert_close(made[:FRAMES], first, rtol=1e-3, atol=1e-3)
    swapped = conditioned(host, loaded, kind, image=pictures.flip(0), batch_size=2, **ends)
    assert not torch.allclose(alone(host, loaded, swapped, 1.0, 1.0)[:FRAMES], first, atol=1e-2)


@pytest.mark.parametrize(("firsts", "lasts"), [(1, 2), (2, 1)])
def test_one_picture_may_serve_all_clips(host, loaded, kind, firsts, lasts):
    pictures = torch.cat([picture(), picture(1)])
    ends = {"end_image": pictures[:lasts]} if kind == "interp" else {}
    given = conditioned(host, loaded, kind, image=pictures[:firsts], batch_size=2, **ends)
    assert len(alone(host, loaded, given, 1.0, 1.0)) == 2 * FRAMES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"image": None, "end_image": None},
            "makes a clip from a picture, and there is none",
        ),
        ({"clip_vision": None, "end_image": None}, "clip_vision of Retention Encode is not connected"),
        ({"vae": None}, "vae of Retention Encode is not connected"),
        ({"frames": 4}, "frames is 4; this model makes clips of 3 frames"),
    ],
    ids=["no picture", "no CLIP vision", "no VAE", "another length"],
)
def test_what_is_missing_is_said(host, loaded, kind, change, words):
    with pytest.raises(ValueError, match=words):
        sample(host, loaded[0], conditioned(host, loaded, kind, **change))


def test_a_last_picture_is_for_models_that_take_one(host, loaded, kind):
    if kind == "interp":
        loop, other = (
            sample(host, loaded[0], conditioned(host, loaded, kind, end_image=last)) for last in (picture(), picture(1))
        )
        assert not torch.allclose(loop, other, atol=1e-2)
    else:
        with pytest.raises(ValueError, match="this model takes no last picture"):
            sample(host, loaded[0], conditioned(host, loaded, kind, end_image=picture(1)))
    if kind == "interp":
        with pytest.raises(ValueError, match="end_image of Retention Encode is not connected"):
            sample(host, loaded[0], conditioned(host, loaded, kind, end_image=None))
    with pytest.raises(ValueError, match="end_image is connected, but image is not"):
        conditioned(host, loaded, kind, image=None, end_image=picture(1))


def test_each_picture_has_inputs_of_its_own(host, loaded, kind):
    """Neither frame rate nor views are taken from another Retention Encode."""
    positive, negative, latent = conditioned(host, loaded, kind, fps=100)
    own = conditioned(host, loaded, kind)
    both = host.call("ConditioningCombine", conditioning_1=positive, conditioning_2=own[0])[0]
    rate = KINDS[kind].sampling.fps
    told = host.call(
        "ConditioningCombine", conditioning_1=positive, conditioning_2=conditioned(host, loaded, kind, fps=rate)[0]
    )[0]
    options = {"seed": 3, "steps": 2, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "simple", "denoise": 1.0}
    made, expected = (
        host.call("KSampler", model=loaded[0], positive=c, negative=negative, latent_image=latent, **options)[0]["samples"]
        for c in (both, told)
    )
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    if kind != "interp":
        blind = conditioned(host, loaded, kind, clip_vision=None)
        with pytest.raises(ValueError, match="clip_vision of Retention Encode is not connected"):
            sample(host, loaded[0], (blind[0], negative, latent))


def test_context_windows_are_refused(host, loaded, kind):
    (windowed,) = host.call(
        "ContextWindowsManual", model=loaded[0], context_length=2, context_overlap=1, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="a context window has 2 frames; this model makes clips of 3 frames"):
        sample(host, windowed, conditioned(host, loaded, kind))


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2", "bf16"])
def test_weights_in_less_precision(host, loaded, kind, dtype):
    small = host.call("LoadDreamVideo", checkpoint=f"photographs_{kind}.safetensors", weight_dtype=dtype)
    given = conditioned(host, loaded, kind)
    expected, made = (alone(host, part, given, 1.0, 1.0) for part in (loaded, small))
    assert (made - expected).norm() < (0.02 if dtype == "bf16" else 0.5) * expected.norm()


def test_a_vae_that_overflows_is_named(host, loaded, kind, monkeypatch):
    encode = loaded[2].encode
    monkeypatch.setattr(loaded[2], "encode", lambda pixels: encode(pixels) * float("nan"))
    with pytest.raises(ValueError, match="vae's output has values that are no numbers"):
        conditioned(host, loaded, kind)


def test_latents_of_another_size_are_refused(host, loaded, kind):
    positive, negative, _ = conditioned(host, loaded, kind)
    latent = {"samples": torch.zeros(FRAMES, 4, 6, 4)}
    with pytest.raises(ValueError, match="the picture is 32 x 32, but the latent stands for 32 x 48 pixels"):
        sample(host, loaded[0], (positive, negative, latent))


def test_a_clip_vision_model_of_another_width_is_refused(host, loaded, kind):
    positive, negative, latent = conditioned(host, loaded, kind)
    views = {key: torch.zeros(1, 5, 24) for key in ("dreamvideo_grey_hidden", "retention_hidden")}
    wide = [[[text, options | views] for text, options in conditioning] for conditioning in (positive, negative)]
    with pytest.raises(ValueError, match="clip_vision gives 24 channels, this model takes 16"):
        sample(host, loaded[0], (*wide, latent))


def test_save_checkpoint_keeps_the_resampler(host, loaded, kind):
    host.call("CheckpointSave", model=loaded[0], clip=loaded[1], vae=loaded[2], filename_prefix=f"checkpoints/saved_{kind}")
    saved = next((host.base.root / "output" / "checkpoints").glob(f"saved_{kind}*.safetensors"))
    saved.rename(host.base.models / "dreamvideo" / f"saved_{kind}.safetensors")
    again = host.call("LoadDreamVideo", checkpoint=f"saved_{kind}.safetensors", weight_dtype="fp32")
    given = conditioned(host, loaded, kind)
    torch.testing.assert_close(sample(host, again[0], given), sample(host, loaded[0], given), rtol=1e-4, atol=1e-4)


def test_retention_every_has_no_effect_and_that_is_said(host, loaded, kind):
    positive, negative, _ = conditioned(host, loaded, kind)
    guidance = host.module("dreamvideo_core.sampling.guidance").Guidance(2.0, 1.5)
    guider = host.module("nodes.sampling").make_guider(loaded[0], positive, negative, guidance, 2)
    assert guider.remarks == ["retention_every has no effect: this model has no retention branch"]


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    """A server that has a whole model of this kind."""
    running: Server = request.getfixturevalue(request.param)
    path = running.base.models / "dreamvideo" / "photographs.safetensors"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        random_weights(Pipeline.build(DYNAMICRAFTER)).save(path, dtype=torch.float32)
    return running


def test_a_chain_encodes_every_last_frame_again(any_server: Server):
    """Two stages are what two clips by hand are; kept stages are not sampled again."""
    graph = chain(ONE, TWO, frames=FRAMES)
    graph["model"]["inputs"]["checkpoint"] = "photographs.safetensors"
    graph["chain"]["inputs"]["clip_vision"] = ["model", 3]
    assert sampled(any_server.client.run(graph)) == [1, 2]
    frames = load_file(any_server.output / "frames.safetensors")["frames"]
    hand = image_to_video(PICTURE, ONE, frames=FRAMES)
    hand["model"]["inputs"]["checkpoint"] = "photographs.safetensors"
    hand["retention"]["inputs"]["clip_vision"] = ["model", 3]
    hand["save"] = node("SaveFrames", frames=["decode", 0], name="first")
    any_server.client.run(hand)
    torch.testing.assert_close(load_file(any_server.output / "first.safetensors")["frames"], frames[:FRAMES], rtol=0, atol=1e-6)
    graph["chain"]["inputs"]["prompts"] = f"{ONE}\n{THREE}"
    assert sampled(any_server.client.run(graph)) == [2]
    del graph["chain"]["inputs"]["clip_vision"]
    with pytest.raises(ExecutionFailed, match="clip_vision of Retention Encode is not connected"):
        any_server.client.run(graph)
