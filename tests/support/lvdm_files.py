"""Files under the names of DynamiCrafter's public code: as its trainer writes them, and pruned as people share them.

The names and shapes of the whole public models lie in `core/weights/data`. Small models have the same names: each width is
divided, and most layers of CLIP are left out. Values follow from the names, so that outputs of the public code can be stored.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dreamvideo_core.models.config import ModelConfig
from dreamvideo_core.weights.dynamicrafter import MODELS, VARIANTS

DATA = Path(__file__).parents[1] / "core" / "weights" / "data"
UNET, RESAMPLER, VAE = "model.diffusion_model.", "image_proj_model.", "first_stage_model."
TEXT, VISION = "cond_stage_model.model.", "embedder.model.visual."
TEXT_LAYERS, VISION_LAYERS = 3, 2  # of small models; the last one of the text is not used
# What the widths of the public models become in small ones, by the start of a weight's name.
_WIDTHS = {
    UNET: {320 * n: 32 * n for n in range(1, 33)} | {1024: 24} | {512 * n: 128 * n for n in (1, 4, 8)},
    RESAMPLER: {1280: 40, 1024: 24, 768: 48, 1536: 96, 4096: 96},
    VAE: {128: 32, 256: 64, 512: 128},
    VISION: {1280: 40, 3840: 120, 5120: 160, 1024: 24},
    "cond_stage_model.": {1024: 24, 3072: 72, 4096: 96},
    "embedder.": {1024: 24},
}
_LAYER = re.compile(rf"(?:{re.escape(TEXT)}|({re.escape(VISION)}))transformer\.resblocks\.(\d+)\.")
_SCALES, _SCALE_STEPS = "scale_arr", 400
TEXTS = ["a cat walks on a table", ""]  # of which outputs are stored
_KEPT = 397  # values of an output


def public_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a public model's .ckpt, as DynamiCrafter's own code has them."""
    file = DATA / f"dynamicrafter_{'256' if variant == 'dynamicrafter_256' else '512'}.json.gz"
    return {name: tuple(shape) for name, shape in json.loads(gzip.decompress(file.read_bytes()))["tensors"].items()}


def small_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """The same of a small model."""
    return {name: _small(name, shape) for name, shape in public_shapes(variant).items() if _stays(name)}


def _stays(name: str) -> bool:
    layer = _LAYER.match(name)
    return layer is None or int(layer[2]) < (VISION_LAYERS if layer[1] else TEXT_LAYERS)


def _small(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    widths = next((table for start, table in _WIDTHS.items() if name.startswith(start)), {})
    return tuple(widths.get(size, size) for size in shape)


def small_config(variant: str) -> ModelConfig:
    """What a small model is."""
    config = MODELS[variant]
    small = {"hidden_size": 40, "intermediate_size": 160, "num_hidden_layers": VISION_LAYERS, "num_attention_heads": 2}
    text = {"hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": TEXT_LAYERS - 1, "num_attention_heads": 2}
    return replace(
        config,
        unet=replace(config.unet, block_out_channels=(32, 64, 128, 128), cross_attention_dim=24, attention_head_dim=16),
        resampler=replace(
            config.resampler, embedding_dim=40, width=24, num_attention_heads=3, attention_head_dim=16, cross_attention_dim=24
        ),
        vae=replace(config.vae, block_out_channels=(32, 64, 128, 128)),
        text_encoder=replace(config.text_encoder, **text),
        image_encoder=replace(config.image_encoder, **small, projection_dim=24),
        sampling=replace(config.sampling, steps=2, width=64, height=64),
    )


def use_small_models(monkeypatch) -> None:
    """Have files be opened as small models in this process."""
    for variant in VARIANTS:
        monkeypatch.setitem(MODELS, variant, small_config(variant))


def values(name: str, shape: tuple[int, ...]) -> Tensor:
    """Random weights that follow from the tensor's name alone; with them every layer has outputs of about 1."""
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) < 2:
        return tensor / 10 + name.endswith(".weight")  # of norms
    return tensor / math.prod(shape[1:]) ** 0.5


def inputs(batch: int) -> dict[str, Tensor]:
    """What a small model is given for `batch` clips of 16 frames: the same every time, and for every clip something else."""
    generator = torch.Generator().manual_seed(batch)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "latents": draw(16, 4, 8, 8),
        "image_latents": draw(16, 4, 8, 8),
        "timesteps": torch.randint(0, 1000, (batch,), generator=generator),
        "text": draw(77, 24),
        "tokens": draw(16, 16, 24),
        "fps": torch.randint(1, 30, (batch,), generator=generator),
        "hidden": draw(257, 40),
        "image": draw(3, 64, 80).clamp(-1, 1),
        "prepared": draw(3, 224, 224),
    }


def sample(output: Tensor) -> Tensor:
    """Values of an output from all over it, few enough to be stored."""
    flat = output.flatten()
    return flat[torch.linspace(0, len(flat) - 1, min(_KEPT, len(flat))).long()].clone()


def _tensors(variant: str, shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Tensor]]:
    base_scale = MODELS[variant].schedule.base_scale
    for name, shape in shapes.items():
        if name == _SCALES:
            steps = torch.linspace(1, base_scale, _SCALE_STEPS)
            yield name, torch.cat([steps, torch.full((shape[0] - _SCALE_STEPS,), base_scale)])
        elif variant == "dynamicrafter_256":  # whose published file is older than its code
            yield name.replace("fps_embedding", "framestride_embed"), values(name, shape)
        else:
            yield name, values(name, shape)


def state(variant: str) -> dict[str, Tensor]:
    """Everything that the .ckpt of a small model holds."""
    return dict(_tensors(variant, small_shapes(variant)))


def pruned(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """What people leave of such a file: everything but CLIP, in half precision."""
    return {
        name: tensor.to(dtype) for name, tensor in tensors.items() if not name.startswith(("cond_stage_model.", "embedder."))
    }


def write_ckpt(path: Path, variant: str) -> dict[str, Tensor]:
    """Write a small model as the trainer does, and return what is in it."""
    written = state(variant)
    torch.save({"state_dict": written, "global_step": 5}, path)
    return written


def write_pruned(path: Path, variant: str, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """Write a small model as people share it, and return what is in it."""
    written = pruned(state(variant), dtype)
    save_file(written, path, {"format": "pt"})
    return written


def write_full_size(path: Path, variant: str) -> None:
    """Write a pruned model of the public size, 3.1 GB, of random values."""
    shapes = {
        name: shape for name, shape in public_shapes(variant).items() if not name.startswith(("cond_stage_model.", "embedder."))
    }
    save_file({name: tensor.half() for name, tensor in _tensors(variant, shapes)}, path, {"format": "pt"})
