"""A small text-to-video model in a folder, written by diffusers and transformers themselves."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

UNET = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
}
TEXT = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"}
VAE = {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "latent_channels": 4}


def write_folder(folder: Path, **options: Any) -> UNet3DConditionModel:
    """Write the folder and return its U-Net; `options` (shards, variants) go to its writer."""
    torch.manual_seed(0)
    unet = UNet3DConditionModel(**UNET)
    for parameter in unet.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    unet.save_pretrained(folder / "unet", **options)
    CLIPTextModel(CLIPTextConfig(**TEXT)).save_pretrained(folder / "text_encoder")
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    AutoencoderKL(**VAE, **blocks).save_pretrained(folder / "vae")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDIMScheduler(**schedule, prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    return unet.eval()
