"""Whole graphs in real servers: the pack's nodes among ComfyUI's own, and bad input in its own words."""

from __future__ import annotations

import json

import av
import pytest
import torch
from comfy_host.errors import ExecutionFailed, PromptRejected
from comfy_host.server import Server
from graphs import FRAMES, SIZE, image_to_video, node
from PIL import Image
from safetensors.torch import load_file, save_file

PICTURE = "dreamvideo_two_sprites.png"


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def latents(server: Server, graph: dict, source: str = "sampler") -> torch.Tensor:
    """What a sampler node gives, through ComfyUI's own SaveLatent."""
    graph = {k: v for k, v in graph.items() if k not in ("decode", "save")}
    graph["keep"] = node("SaveLatent", samples=[source, 0], filename_prefix="kept")
    item = next(iter(server.client.run(graph).saved()))
    return load_file(server.output / item["subfolder"] / item["filename"])["latent_tensor"]


@pytest.mark.parametrize(
    ("with_picture", "prompt"), [(True, "the red circle moves left"), (True, ""), (False, "a blue star grows")]
)
def test_the_three_uses_give_a_clip(any_server: Server, with_picture: bool, prompt: str):
    execution = any_server.client.run(image_to_video(PICTURE if with_picture else None, prompt))
    files = list(execution.saved())
    assert len(files) == FRAMES
    assert Image.open(any_server.output / files[0]["filename"]).size == (SIZE, SIZE)


def test_clips_in_a_batch_get_noise_and_pictures_of_their_own(server: Server):
    two = latents(server, image_to_video(PICTURE, batch_size=2))
    assert two.shape == (2 * FRAMES, 4, SIZE // 8, SIZE // 8)
    one = latents(server, image_to_video(PICTURE))
    torch.testing.assert_close(two[:FRAMES], one, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(two[:FRAMES], two[FRAMES:], atol=1e-2)


def test_strength_start_and_end(server: Server):
    full, text_only = latents(server, image_to_video(PICTURE)), latents(server, image_to_video())
    torch.testing.assert_close(latents(server, image_to_video(PICTURE, strength=0.0)), text_only, rtol=1e-4, atol=1e-4)
    half = latents(server, image_to_video(PICTURE, strength=0.5))
    late = latents(server, image_to_video(PICTURE, start=0.5))
    for a, b in ((full, text_only), (half, full), (half, text_only), (late, full), (late, text_only)):
        assert (a - b).abs().max() > 1e-3


def test_guidance_is_on_inside_its_interval_alone(server: Server):
    def made(**settings) -> torch.Tensor:
        graph = image_to_video(PICTURE)
        graph["sampler"]["inputs"] |= settings
        return latents(server, graph)

    guided, plain = made(), made(text_scale=1.0, image_scale=1.0)
    torch.testing.assert_close(made(guidance_start=1.0), plain, rtol=0, atol=0)
    half = made(guidance_end=0.4)
    for a, b in ((guided, plain), (half, guided), (half, plain)):
        assert (a - b).abs().max() > 1e-3


def test_stock_samplers_take_the_conditioning(any_server: Server):
    graph = image_to_video(PICTURE)
    ours = graph["sampler"]["inputs"]
    shared = {"positive": ["retention", 0], "negative": ["retention", 1]}
    graph["ksampler"] = node(
        "KSampler", model=["model", 0], **shared, latent_image=["retention", 2], seed=3, steps=ours["steps"], cfg=2.0,
        sampler_name="ddim", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    scales = {"text_scale": 2.0, "image_scale": 1.5, "order": "text_first", "rescale": 0.0}
    graph["guider"] = node("DreamVideoGuider", model=["model", 0], **shared, **scales)
    graph["noise"] = node("RandomNoise", noise_seed=3)
    graph["method"] = node("KSamplerSelect", sampler_name="ddim")
    graph["sigmas"] = node("BasicScheduler", model=["model", 0], scheduler="simple", steps=ours["steps"], denoise=1.0)
    graph["advanced"] = node(
        "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["method", 0], sigmas=["sigmas", 0],
        latent_image=["retention", 2],
    )  # fmt: skip
    sampled = latents(any_server, graph)
    torch.testing.assert_close(latents(any_server, graph, "advanced"), sampled, rtol=0, atol=0)
    assert latents(any_server, graph, "ksampler").isfinite().all()


def test_the_stock_dual_guider_agrees_with_ours(server: Server):
    graph = image_to_video(PICTURE)
    graph["without"] = node("RetentionEncode", **{**graph["retention"]["inputs"]})
    del graph["without"]["inputs"]["image"]
    graph["guider"] = node(
        "DualCFGGuider", model=["model", 0], cond1=["retention", 0], cond2=["without", 0], negative=["without", 1],
        cfg_conds=1.5, cfg_cond2_negative=2.0, style="regular",
    )  # fmt: skip
    graph["noise"] = node("RandomNoise", noise_seed=3)
    graph["method"] = node("KSamplerSelect", sampler_name="ddim")
    graph["sigmas"] = node("BasicScheduler", model=["model", 0], scheduler="simple", steps=2, denoise=1.0)
    graph["advanced"] = node(
        "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["method", 0], sigmas=["sigmas", 0],
        latent_image=["retention", 2],
    )  # fmt: skip
    torch.testing.assert_close(latents(server, graph, "advanced"), latents(server, graph), rtol=1e-3, atol=1e-3)


def test_stock_nodes_behind(any_server: Server):
    graph = image_to_video(PICTURE)
    graph["encoded"] = node("VAEEncode", pixels=["decode", 0], vae=["model", 2])
    graph["first"] = node("LatentFromBatch", samples=["encoded", 0], batch_index=0, length=1)
    graph["again"] = node("VAEDecode", samples=["first", 0], vae=["model", 2])
    graph["save_again"] = node("SaveImage", images=["again", 0], filename_prefix="again")
    graph["video"] = node("CreateVideo", images=["decode", 0], fps=8.0)
    graph["mp4"] = node("SaveVideo", video=["video", 0], filename_prefix="clip", format="mp4", codec="auto")
    graph["webp"] = node(
        "SaveAnimatedWEBP", images=["decode", 0], filename_prefix="clip", fps=8.0, lossless=True, quality=80, method="default"
    )
    graph["measure"] = node("FirstFrameFidelity", image=["picture", 0], frames=["decode", 0], fit="crop")
    graph["show"] = node("PreviewAny", source=["measure", 0])
    workflow = {"nodes": [], "version": 0.4}
    execution = any_server.client.run(graph, extra_data={"extra_pnginfo": {"workflow": workflow}})

    mp4 = any_server.output / next(f["filename"] for f in execution.saved() if f["filename"].endswith(".mp4"))
    with av.open(mp4) as container:
        assert len(list(container.decode(video=0))) == FRAMES
        # This is what the canvas reads when the clip is dropped on it.
        assert json.loads(container.metadata["workflow"]) == workflow
        assert set(json.loads(container.metadata["prompt"])) == set(graph)
    webp = any_server.output / next(f["filename"] for f in execution.saved() if f["filename"].endswith(".webp"))
    metadata = "".join(str(v) for v in Image.open(webp).getexif().values())
    assert json.dumps(workflow) in metadata
    assert -1 <= float(execution.outputs["show"]["text"][0]) <= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 60}, ["width is 60; allowed: multiples of 8 up to 4096. Take 64"]),
        ({"height": 0}, ["height", "0", "min of 8"]),
        ({"frames": 0}, ["frames", "0", "min of 1"]),
        ({"start": 0.8, "end": 0.2}, ["start", "0.8", "end", "0.2"]),
        ({"strength": -1.0}, ["strength", "-1.0", "min of 0.0"]),
    ],
)
def test_bad_retention_input_is_refused_by_name(server: Server, change: dict, words: list[str]):
    with pytest.raises((PromptRejected, ExecutionFailed)) as caught:
        server.client.run(image_to_video(**change))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("text_scale", -1.0), ("image_scale", -0.5), ("text_scale", 1e9)])
def test_scales_outside_their_range_are_refused(server: Server, name: str, value: float):
    graph = image_to_video()
    graph["sampler"]["inputs"][name] = value
    with pytest.raises(PromptRejected, match=name):
        server.client.run(graph)


def test_a_latent_that_does_not_fit_the_frames(server: Server):
    graph = image_to_video()
    graph["other"] = node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=FRAMES + 1)
    graph["sampler"]["inputs"]["latent"] = ["other", 0]
    with pytest.raises(ExecutionFailed, match=r"5 frames.*num_video_frames = 4.*Retention Encode"):
        server.client.run(graph)


def test_a_latent_of_another_size_than_the_picture(server: Server):
    graph = image_to_video(PICTURE)
    graph["other"] = node("EmptyLatentImage", width=SIZE * 2, height=SIZE, batch_size=FRAMES)
    graph["sampler"]["inputs"]["latent"] = ["other", 0]
    with pytest.raises(ExecutionFailed, match=r"32 x 32, but the latent stands for 64 x 32"):
        server.client.run(graph)


def test_conditioning_without_retention_encode_is_text_to_video(server: Server):
    graph = image_to_video()
    graph["other"] = node("EmptyLatentImage", width=SIZE, height=SIZE, batch_size=FRAMES)
    graph["sampler"]["inputs"] |= {"positive": ["positive", 0], "negative": ["negative", 0], "latent": ["other", 0]}
    torch.testing.assert_close(latents(server, graph), latents(server, image_to_video()), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is no model", "this is no .safetensors file"),
        (None, "carries no DreamVideo configuration"),
    ],
)
def test_files_that_are_no_model(server: Server, content: bytes | None, words: str):
    folder = server.base.models / "dreamvideo"
    folder.mkdir(exist_ok=True)
    name = "bad.safetensors" if content else "foreign.safetensors"
    if content:
        (folder / name).write_bytes(content)
    else:
        save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(2)}, folder / name)
    graph = image_to_video()
    graph["model"]["inputs"]["checkpoint"] = name
    with pytest.raises(ExecutionFailed, match=words):
        server.client.run(graph)


def test_savers_and_merges_give_models_that_load(server: Server):
    expected = latents(server, image_to_video(PICTURE))
    graph = image_to_video(PICTURE)
    graph["merged"] = node("ModelMergeSimple", model1=["model", 0], model2=["model", 0], ratio=0.5)
    graph["saved"] = node(
        "CheckpointSave", model=["merged", 0], clip=["model", 1], vae=["model", 2], filename_prefix="checkpoints/whole"
    )
    server.client.run({k: graph[k] for k in ("model", "merged", "saved")})
    written = next((server.output / "checkpoints").glob("whole*.safetensors"))
    folder = server.base.models / "dreamvideo"
    folder.mkdir(exist_ok=True)
    written.rename(folder / "whole.safetensors")
    graph = image_to_video(PICTURE)
    graph["model"]["inputs"]["checkpoint"] = "whole.safetensors"
    torch.testing.assert_close(latents(server, graph), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("show", "shape"),
    [("moving", (FRAMES, SIZE + 14, 3 * SIZE + 8, 3)), ("strip", (1, SIZE + 14, 6 * SIZE + 20, 3))],
)
def test_a_grid_of_clips(any_server: Server, show: str, shape: tuple):
    graph = image_to_video(PICTURE)
    clips = {"clips.clip0": ["decode", 0], "clips.clip1": ["decode", 0], "image": ["picture", 0]}
    graph["grid"] = node("ClipGrid", captions="one\ntwo", columns=3, show=show, frames="0 -1", **clips)
    graph["exact"] = node("SaveFrames", frames=["grid", 0], name="grid")
    any_server.client.run(graph)
    assert load_file(any_server.output / "grid.safetensors")["frames"].shape == shape
