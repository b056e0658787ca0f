"""Networks that look at clips, small and made on the spot, as a user's files."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel


class MeanColours(nn.Module):
    """Mean of each channel in the first and in the last frame: (B, 6)."""

    def forward(self, clips: Tensor) -> Tensor:
        return torch.cat([clips[:, :, 0].mean([2, 3]), clips[:, :, -1].mean([2, 3])], 1)


def write_network(path: Path, module: nn.Module | None = None) -> Path:
    """A module as TorchScript."""
    torch.jit.script(MeanColours() if module is None else module).save(str(path))
    return path


def write_clip_folder(folder: Path, **text) -> Path:
    """A tiny random CLIPModel of OpenAI's vocabulary, in safetensors."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, **text},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder
