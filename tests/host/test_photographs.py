"""A model that sees the picture by CLIP and by its latents (DynamiCrafter's mechanism, small and random) in ComfyUI's nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from sampling import sample
from tiny import DYNAMICRAFTER

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
