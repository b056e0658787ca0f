"""What is seen while a clip is made, and that looking never breaks the making."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from types import SimpleNamespace

import aiohttp
import pytest
import torch
import torch.nn.functional as F
from comfy_host.server import Server
from graphs import FRAMES, SHIPPED, SIZE, image_to_video
from PIL import Image
from sampling import sample

from dreamvideo_core.sprites import render_batch, sample_clip
from dreamvideo_core.sprites.scene import seeded


@pytest.fixture(scope="module")
def loaded(host) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


@pytest.fixture(scope="module")
def conditioned(host, loaded) -> tuple:
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=t)[0] for t in ("the red circle moves left", "")]
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=None, width=SIZE, height=SIZE, frames=FRAMES,
        batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip


@pytest.fixture
def previews(host, monkeypatch) -> list:
    """What a sampler shows at each step, with previews on, however quick the steps are."""
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    shown = []
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    monkeypatch.setattr(
        comfy.utils.ProgressBar, "update_absolute", lambda self, step, total=None, preview=None: shown.append(preview)
    )
    monkeypatch.setattr(host.module("nodes.host.previews"), "_SHARE", 1e6)
    return shown


def written(preview: tuple) -> Image.Image:
    """What a client reads of a preview that the server has written."""
    kind, picture, largest = preview
    file = io.BytesIO()
    file.write(b"head")  # the server's own, before the picture
    picture.save(file, format=kind, quality=95, compress_level=1)
    assert largest is None
    return Image.open(io.BytesIO(file.getvalue()[4:]))


def test_all_frames_move(host, loaded, conditioned, previews):
    sample(host, loaded[0], conditioned, steps=2)
    assert len(previews) == 2
    animation = written(previews[-1])
    assert (animation.format, animation.n_frames, animation.size) == ("PNG", FRAMES, (128, 128))
    assert animation.info["duration"] == 125


@pytest.mark.parametrize(("frames", "height", "width", "size"), [(16, 64, 64, (128, 128)), (40, 200, 100, (64, 128))])
def test_noise_of_any_length_and_size_stays_small(host, frames, height, width, size):
    """The worst case for a file of pixels, and more frames than are shown: the clip lasts as long as it would."""
    previews = host.module("nodes.host.previews")
    moving = previews._Previews(previews.ClipLatents())._moving(3 * torch.randn(frames, 4, height, width))
    assert len(moving.png) < 300_000
    animation = Image.open(io.BytesIO(moving.png))
    assert (animation.n_frames, animation.size) == (16, size)
    assert animation.info["duration"] == 125 * frames / 16


@pytest.mark.parametrize(("step", "cost"), [(0.002, 0.01), (0.1, 0.02), (0.1, 0.3), (5, 0.01)])
def test_previews_take_a_twentieth_of_the_time(host, monkeypatch, step: float, cost: float):
    """Whatever a step and a preview take, by a clock of the test's own."""
    module = host.module("nodes.host.previews")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def moving(self, latents):
        clock.now += cost
        return latents

    monkeypatch.setattr(module._Previews, "_moving", moving)
    previews, latents, made = module._Previews(None), torch.zeros(1), 0
    for _ in range(2000):
        clock.now += step
        made += previews.after_step(latents) is not None
        assert made <= 1 or (made - 1) * cost <= 0.05 * clock.now
    assert made * cost >= min(0.04 * clock.now, 2000 * cost)  # and as many as there is time for


def test_no_preview_where_none_is_wanted(host, loaded, conditioned, previews, monkeypatch):
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.NoPreviews)
    sample(host, loaded[0], conditioned, steps=2)
    assert previews == [None, None]


@pytest.mark.parametrize("fault", ["to_uint8", "_in_one_palette"])
def test_a_preview_that_fails_leaves_the_clip_as_it_is(host, loaded, conditioned, previews, monkeypatch, caplog, fault):
    plain = sample(host, loaded[0], conditioned, steps=2)
    monkeypatch.setattr(host.module("nodes.host.previews"), fault, lambda given: 1 / 0)
    previews.clear()
    assert torch.equal(sample(host, loaded[0], conditioned, steps=2), plain)
    assert previews == [None, None]
    assert caplog.text.count("this run has no previews: division by zero") == 1


def test_a_client_is_sent_png_under_the_code_for_png(server: Server):
    """Both messages that ComfyUI has for previews: with the node that they belong to, and without for older clients."""
    graph = image_to_video(width=64, height=64, frames=8)
    graph["sampler"]["inputs"]["steps"] = 40
    for knows_metadata in (True, False):
        graph["sampler"]["inputs"]["seed"] = 10 + knows_metadata
        sent = asyncio.run(previews_over_the_wire(server, graph, knows_metadata))
        assert sent and all(code == 2 for code, _ in sent)
        assert all(len(content) < 300_000 for _, content in sent)
        animation = Image.open(io.BytesIO(sent[-1][1]))
        assert (animation.format, animation.n_frames, animation.size) == ("PNG", 8, (128, 128))


async def previews_over_the_wire(server: Server, graph: dict, knows_metadata: bool) -> list[tuple[int, bytes]]:
    """The code of the picture's format, and the picture, of each preview of a run."""
    sent = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId=previews", max_msg_size=0) as socket,
    ):
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": knows_metadata}})
        payload = {"prompt": graph, "client_id": "previews", "extra_data": {"preview_method": "latent2rgb"}}
        prompt_id = server.client.post("/prompt", payload)["prompt_id"]
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                told = json.loads(message.data)
                assert told["type"] not in ("execution_error", "execution_interrupted"), told
                if told["type"] == "execution_success" and told["data"]["prompt_id"] == prompt_id:
                    return sent
            elif message.type == aiohttp.WSMsgType.BINARY:
                sent += preview_in(message.data)
    raise AssertionError("the connection ended")


def preview_in(message: bytes) -> list[tuple[int, bytes]]:
    kind, second = struct.unpack_from(">II", message)
    if kind == 1:  # BinaryEventTypes.PREVIEW_IMAGE
        return [(second, message[8:])]
    if kind == 4:  # BinaryEventTypes.PREVIEW_IMAGE_WITH_METADATA
        about = json.loads(message[8 : 8 + second])
        return [({"image/jpeg": 1, "image/png": 2}[about["image_type"]], message[8 + second :])]
    return []


def test_stock_samplers_show_frames_side_by_side(host, loaded, conditioned, previews):
    positive, negative, latent = conditioned
    host.call(
        "KSampler", model=loaded[0], positive=positive, negative=negative, latent_image=latent, seed=3, steps=2, cfg=2.0,
        sampler_name="ddim", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    _, picture, _ = previews[-1]
    assert picture.size == (2 * SIZE // 8, 2 * SIZE // 8)  # four frames, a pixel for each of the latents


@torch.no_grad()
def test_colours_are_those_of_the_picture(host, loaded):
    latent_format = loaded[0].model.latent_format
    pictures = render_batch([sample_clip(seeded("test", 0, number)) for number in range(8)], num_frames=1)[:, 0]
    latents = latent_format.process_in(loaded[2].encode((pictures.movedim(1, -1) + 1) / 2)).movedim(1, -1)
    shown = latents @ torch.tensor(latent_format.latent_rgb_factors) + torch.tensor(latent_format.latent_rgb_factors_bias)
    assert (shown - F.avg_pool2d(pictures, 8).movedim(1, -1)).abs().mean() < 0.08
