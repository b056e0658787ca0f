"""The weights that a configuration asks for: their names in a checkpoint, and their outlines (tensors on the device "meta").

The pack's own modules are built on "meta" for that. CLIP's two encoders and the full-size autoencoder belong to transformers,
diffusers or ComfyUI, of which a machine may lack some, so their names and shapes are written out here.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ..models.autoencoder import Autoencoder
from ..models.config import AutoencoderConfig, ModelConfig, TextConfig, VisionConfig
from ..models.image_conditions import Resampler
from ..models.layers import Operations
from ..models.retention import ImageRetention
from ..models.unet import UNet

Shapes = dict[str, tuple[int, ...]]


@lru_cache(maxsize=8)
def expected_weights(config: ModelConfig, part: str) -> dict[str, Tensor]:
    """The outlines of a part's weights by name. The result is cached: do not change it.

    "retention" needs the configuration of the U-Net too, whose encoder it copies.
    """
    operations = Operations(device="meta")
    if part == "unet":
        return UNet(config.unet, operations).state_dict()
    if part == "retention":
        return ImageRetention(config.unet, config.retention, operations).state_dict()
    if part == "resampler":
        return Resampler(config.resampler, operations).state_dict()
    if part == "text_encoder":
        return _outlines(text_encoder_shapes(config.text_encoder))
    if part == "image_encoder":
        return _outlines(image_encoder_shapes(config.image_encoder))
    if config.vae.layout == "taesd":
        with torch.device("meta"):
            return Autoencoder(config.vae.latent_channels).state_dict()
    return _outlines(kl_shapes(config.vae))


def _outlines(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def text_encoder_shapes(config: TextConfig) -> Shapes:
    """The shapes of CLIP's text encoder by transformers' names."""
    width = config.hidden_size
    shapes = {
        "embeddings.token_embedding.weight": (config.vocab_size, width),
        "embeddings.position_embedding.weight": (config.max_position_embeddings, width),
        **_norm("final_layer_norm", width),
        **_transformer(config),
    }
    return {f"text_model.{name}": shape for name, shape in shapes.items()}


def image_encoder_shapes(config: VisionConfig) -> Shapes:
    """CLIP's vision encoder with its projection by transformers' names."""
    width, patches = config.hidden_size, (config.image_size // config.patch_size) ** 2
    shapes = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, config.patch_size, config.patch_size),
        "embeddings.position_embedding.weight": (patches + 1, width),
        **_norm("pre_layrnorm", width),  # sic
        **_norm("post_layernorm", width),
        **_transformer(config),
    }
    named = {f"vision_model.{name}": shape for name, shape in shapes.items()}
    return {**named, "visual_projection.weight": (config.projection_dim, width)}


def _transformer(config: TextConfig | VisionConfig) -> Shapes:
    width, inner = config.hidden_size, config.intermediate_size
    shapes = {}
    for layer in (f"encoder.layers.{number}" for number in range(config.num_hidden_layers)):
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _layer(f"{layer}.self_attn.{projection}", width, width)
        shapes |= _norm(f"{layer}.layer_norm1", width) | _norm(f"{layer}.layer_norm2", width)
        shapes |= _layer(f"{layer}.mlp.fc1", inner, width) | _layer(f"{layer}.mlp.fc2", width, inner)
    return shapes


def kl_shapes(config: AutoencoderConfig) -> Shapes:
    """The shapes of Stable Diffusion's autoencoder by diffusers' names."""
    widths, latent = config.block_out_channels, config.latent_channels
    shapes = _layer("quant_conv", 2 * latent, 2 * latent, 1, 1) | _layer("post_quant_conv", latent, latent, 1, 1)
    shapes |= _half("encoder", "down", widths, 3, 2 * latent, config.layers_per_block)
    return shapes | _half("decoder", "up", widths[::-1], latent, 3, config.layers_per_block + 1)


def _half(half: str, direction: str, widths: tuple[int, ...], channels_in: int, channels_out: int, layers: int) -> Shapes:
    """The encoder (direction "down") or the decoder ("up"), with the widths of its levels in forward order."""
    deepest = widths[-1] if direction == "down" else widths[0]
    shapes = _layer(f"{half}.conv_in", widths[0], channels_in, 3, 3) | _layer(
        f"{half}.conv_out", channels_out, widths[-1], 3, 3
    )
    shapes |= _norm(f"{half}.conv_norm_out", widths[-1]) | _middle(f"{half}.mid_block", deepest)
    before = widths[0]
    for level, width in enumerate(widths):
        block = f"{half}.{direction}_blocks.{level}"
        for layer in range(layers):
            shapes |= _resnet(f"{block}.resnets.{layer}", before, width)
            before = width
        if level < len(widths) - 1:
            shapes |= _layer(f"{block}.{direction}samplers.0.conv", width, width, 3, 3)
    return shapes


def _middle(block: str, width: int) -> Shapes:
    attention = f"{block}.attentions.0"
    shapes = _resnet(f"{block}.resnets.0", width, width) | _resnet(f"{block}.resnets.1", width, width)
    for projection in ("to_q", "to_k", "to_v", "to_out.0"):
        shapes |= _layer(f"{attention}.{projection}", width, width)
    return shapes | _norm(f"{attention}.group_norm", width)


def _resnet(name: str, before: int, width: int) -> Shapes:
    shapes = _norm(f"{name}.norm1", before) | _layer(f"{name}.conv1", width, before, 3, 3)
    shapes |= _norm(f"{name}.norm2", width) | _layer(f"{name}.conv2", width, width, 3, 3)
    return shapes | (_layer(f"{name}.conv_shortcut", width, before, 1, 1) if before != width else {})


def _layer(name: str, *weight: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def _norm(name: str, width: int) -> Shapes:
    return _layer(name, width)
