"""What is seen while a clip is made, and that looking never breaks the making."""

from __future__ import annotations

import io

import pytest
import torch
import torch.nn.functional as F
from graphs import FRAMES, SHIPPED, SIZE
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
    """What a sampler shows at each step, with previews on."""
    import comfy.utils
    from comfy.cli_args import LatentPreviewMethod, args

    shown = []
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Auto)
    monkeypatch.setattr(
        comfy.utils.ProgressBar, "update_absolute", lambda self, step, total=None, preview=None: shown.append(preview)
    )
    return shown


def test_all_frames_move(host, loaded, conditioned, previews):
    sample(host, loaded[0], conditioned, steps=2)
    assert len(previews) == 2
    kind, preview, largest = previews[-1]
    file = io.BytesIO()
    file.write(b"head")  # the server's own, before the picture
    preview.save(file, format=kind, quality=95, compress_level=1)
    animation = Image.open(io.BytesIO(file.getvalue()[4:]))
    assert (animation.format, animation.n_frames, largest) == ("WEBP", FRAMES, None)
    assert max(animation.size) > SIZE


def test_no_preview_where_none_is_wanted(host, loaded, conditioned, previews, monkeypatch):
    from comfy.cli_args import LatentPreviewMethod, args

    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.NoPreviews)
    sample(host, loaded[0], conditioned, steps=2)
    assert previews == [None, None]


def test_a_preview_that_fails_leaves_the_clip_as_it_is(host, loaded, conditioned, previews, monkeypatch):
    plain = sample(host, loaded[0], conditioned, steps=2)
    monkeypatch.setattr(host.module("nodes.host.previews"), "to_uint8", lambda pixels: 1 / 0)
    assert torch.equal(sample(host, loaded[0], conditioned, steps=2), plain)
    assert previews[-1] is None


def test_an_animation_that_cannot_be_written_becomes_a_picture(host, monkeypatch):
    preview = host.module("nodes.host.previews").MovingPreview([Image.new("RGB", (8, 8))])
    save = Image.Image.save

    def no_webp(self, file, kind, **options):
        if kind == "WEBP":
            file.write(b"half")
            raise OSError("no encoder")
        save(self, file, kind, **options)

    monkeypatch.setattr(Image.Image, "save", no_webp)
    file = io.BytesIO()
    preview.save(file, format="WEBP")
    assert Image.open(io.BytesIO(file.getvalue())).format == "JPEG"


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
