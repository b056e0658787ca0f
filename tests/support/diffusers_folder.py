"""A text-to-video model in a folder, small or of the public models' size, written by diffusers and transformers themselves."""

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


FULL_UNET = {"cross_attention_dim": 1024, "attention_head_dim": 64}
FULL_TEXT = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu",
}  # fmt: skip
FULL_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}


def write_folder(folder: Path, **options: Any) -> UNet3DConditionModel:
    """Write a small model and return its U-Net; `options` (shards, variants) go to its writer."""
    unet = _write_parts(folder, UNET, TEXT, VAE, **options)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDIMScheduler(**schedule, prediction_type="v_prediction").save_pretrained(folder / "scheduler")
    return unet


def write_full_size(folder: Path) -> None:
    """Write a model of ModelScope's true size in half precision, its U-Net in shards."""
    torch.set_default_dtype(torch.float16)
    try:
        _write_parts(folder, FULL_UNET, FULL_TEXT, FULL_VAE, max_shard_size="1GB")
    finally:
        torch.set_default_dtype(torch.float32)


def _write_parts(folder: Path, unet: dict, text: dict, vae: dict, **options: Any) -> UNet3DConditionModel:
    torch.manual_seed(0)
    model = UNet3DConditionModel(**unet)
    for parameter in model.parameters():  # some start at zero, which would hide what they do
        parameter.data += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder / "unet", **options)
    CLIPTextModel(CLIPTextConfig(**text)).save_pretrained(folder / "text_encoder")
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    AutoencoderKL(**vae, **blocks).save_pretrained(folder / "vae")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    return model.eval()
