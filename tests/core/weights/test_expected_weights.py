"""Names and shapes that are written out, against the libraries whose modules have them."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL
from tiny import TINY, config
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamvideo_core.models.autoencoder import build_autoencoder
from dreamvideo_core.models.config import MODELSCOPE, SPRITES, AutoencoderConfig, ResamplerConfig, TextConfig, VisionConfig
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.text_encoder import TextEncoder
from dreamvideo_core.weights.expected_weights import expected_weights, image_encoder_shapes, kl_shapes, text_encoder_shapes


def shapes(state) -> dict:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("settings", [TextConfig(), MODELSCOPE.text_encoder, SPRITES.text_encoder, TINY.text_encoder])
def test_a_text_encoder_is_transformers(settings):
    with torch.device("meta"):
        assert shapes(TextEncoder(settings).file_state()) == text_encoder_shapes(settings)


@pytest.mark.parametrize(
    "settings", [VisionConfig(), VisionConfig(24, 48, 3, 2, "quick_gelu", 56, 14, 16), VisionConfig(image_size=60)]
)
def test_an_image_encoder_is_transformers(settings):
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vars(settings)))
    assert shapes(model.state_dict()) == image_encoder_shapes(settings)


def test_the_size_of_openclips_image_encoder():
    outlines = expected_weights(replace(MODELSCOPE, image_encoder=VisionConfig()), "image_encoder")
    assert sum(outline.numel() for outline in outlines.values()) == 632_076_800


@pytest.mark.parametrize(
    "settings",
    [
        AutoencoderConfig("kl"),
        AutoencoderConfig("kl", 4, (32, 64, 64, 96), 1, 16),
        AutoencoderConfig("kl", 8, (32, 32, 64, 64), 3, 32),
    ],
)
def test_a_full_size_autoencoder_is_diffusers(settings):
    levels = len(settings.block_out_channels)
    with torch.device("meta"):
        vae = AutoencoderKL(
            latent_channels=settings.latent_channels, block_out_channels=settings.block_out_channels,
            layers_per_block=settings.layers_per_block, norm_num_groups=settings.norm_num_groups,
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        )  # fmt: skip
    assert shapes(vae.state_dict()) == kl_shapes(settings)


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_our_own_parts_are_our_modules(fusion):
    settings = config(fusion=fusion)
    model, resampler = DreamVideo(settings), ResamplerConfig(8, 8, 1, 2, 4, 2, 3, settings.unet.cross_attention_dim)
    settings = replace(settings, resampler=resampler)
    modules = {"unet": model.unet, "retention": model.retention, "vae": build_autoencoder(settings.vae)}
    modules["resampler"] = DreamVideo(settings).resampler
    for part, module in modules.items():
        outlines = expected_weights(settings, part)
        assert shapes(outlines) == shapes(module.state_dict())
        assert all(outline.is_meta for outline in outlines.values())
