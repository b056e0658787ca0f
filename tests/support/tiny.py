"""The smallest models that have every part."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dreamvideo_core.models.config import (
    AutoencoderConfig,
    ModelConfig,
    RetentionConfig,
    SamplingDefaults,
    ScheduleConfig,
    TextConfig,
    UNetConfig,
)
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.sampling.pipeline import Pipeline

TINY = ModelConfig(
    unet=UNetConfig(
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=8,
        temporal_positions=True,
    ),
    retention=RetentionConfig(image_channels=(4, 8, 8, 8)),
    text_encoder=TextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2),
    vae=AutoencoderConfig(),
    schedule=ScheduleConfig(prediction_type="v_prediction"),
    sampling=SamplingDefaults(steps=2, width=16, height=16, num_frames=3),
)


def config(*, fusion: str = "add", retention: bool = True, **unet) -> ModelConfig:
    """`TINY` with other settings of its U-Net and its branch."""
    branch = replace(TINY.retention, fusion=fusion) if retention else None
    return replace(TINY, unet=replace(TINY.unet, **unet), retention=branch)


def random_model(settings: ModelConfig = TINY, seed: int = 0) -> DreamVideo:
    """Every weight at random, those of the zero convolutions too: nothing is a copy of anything."""
    torch.manual_seed(seed)
    return DreamVideo(settings).eval()


@torch.no_grad()
def random_pipeline(settings: ModelConfig = TINY, seed: int = 0) -> Pipeline:
    """A random model that listens: its text and its image are seen in the pixels."""
    torch.manual_seed(seed)
    pipeline = Pipeline.build(settings)
    torch.nn.init.normal_(pipeline.text_encoder.model.get_input_embeddings().weight, std=0.02)
    pipeline.model = random_model(settings, seed)
    for name, parameter in pipeline.model.named_parameters():
        if "attn2.to_out" in name or "conv_s" in name:
            parameter *= 4 if "attn2" in name else 3
    return pipeline.to("cpu")


def inputs(batch: int = 1, frames: int = 3, height: int = 4, width: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents (B, T, 4, h, w), timesteps (B,), texts (B, 5, 16) and images (B, 3, 8h, 8w), all different."""
    generator = torch.Generator().manual_seed(batch + 10 * frames)
    return (
        torch.randn(batch, frames, 4, height, width, generator=generator),
        torch.randint(0, 1000, (batch,), generator=generator),
        torch.randn(batch, 5, 16, generator=generator),
        torch.rand(batch, 3, 8 * height, 8 * width, generator=generator) * 2 - 1,
    )
