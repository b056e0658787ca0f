"""A small Stable Diffusion 1 checkpoint with random weights, for ComfyUI's own Load Checkpoint.

Load Checkpoint knows the model by 320 channels and a text width of 768, so those and CLIP's text encoder have their true
size; the U-Net has two levels of equal width in place of four. The autoencoder is the shipped model's: both soaks decode alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from host import releases
from safetensors.torch import save_file
from torch import Tensor

from dreamvideo_core.sampling.pipeline import SHIPPED
from dreamvideo_core.weights.checkpoint import load_checkpoint

_UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": (1, 1),
    "num_res_blocks": (1, 1), "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1, "context_dim": 768, "num_heads": 8, "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip


def write_stock_model(path: Path, seed: int = 0) -> None:
    """The checkpoint as a file, by ComfyUI's own classes."""
    _import_comfyui()
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.sd1_clip import SDClipModel

    torch.manual_seed(seed)
    parts = {
        "model.diffusion_model": UNetModel(**_UNET, device="meta").state_dict(),
        "cond_stage_model.transformer": SDClipModel(device="meta", dtype=torch.float16).transformer.state_dict(),
    }
    weights = {f"{part}.{name}": _random(name, tensor) for part, tensors in parts.items() for name, tensor in tensors.items()}
    vae = load_checkpoint(SHIPPED).parts["vae"]
    save_file(weights | {f"first_stage_model.{name}": tensor.contiguous() for name, tensor in vae.items()}, path)


def _import_comfyui() -> None:
    sys.path.insert(0, str(releases.locate()))
    from comfy import cli_args

    cli_args.args.cpu = True


def _random(name: str, like: Tensor) -> Tensor:
    """Norms keep their ones and biases their zeros, so that no value overflows."""
    if like.ndim < 2:
        made = torch.ones(like.shape) if name.endswith("weight") else torch.zeros(like.shape)
    else:
        made = torch.randn(like.shape) / like[0].numel() ** 0.5
    return made.to(like.dtype)
