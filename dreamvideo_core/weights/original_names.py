"""Converting the names of weights in latent diffusion's and ModelScope's code to diffusers' names.

Their U-Nets number all layers of the encoder, and of the decoder, in one sequence; diffusers numbers levels, and layers within
a level. Latent diffusion counts the autoencoder's decoder levels from the picture, diffusers from the latents.
"""

from __future__ import annotations

import re

from torch import Tensor

_ROOTS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
    "init_attn.0": "transformer_in",
    "fps_embedding.0": "fps_embedding.linear_1",
    "fps_embedding.2": "fps_embedding.linear_2",
    "framestride_embed.0": "fps_embedding.linear_1",
    "framestride_embed.2": "fps_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_TEMPORAL_CONV = "temopral_conv."  # ModelScope's spelling
_VAE = {
    "mid.block_1.": "mid_block.resnets.0.",
    "mid.block_2.": "mid_block.resnets.1.",
    "mid.attn_1.norm.": "mid_block.attentions.0.group_norm.",
    "mid.attn_1.proj_out.": "mid_block.attentions.0.to_out.0.",
    "mid.attn_1.": "mid_block.attentions.0.to_",  # q, k and v
    "nin_shortcut.": "conv_shortcut.",
    "downsample.": "downsamplers.0.",
    "upsample.": "upsamplers.0.",
    ".norm_out.": ".conv_norm_out.",
    # Names of older versions of diffusers.
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}
_VAE_LEVEL = re.compile(r"(down|up)\.(\d+)\.(?:block\.(\d+)\.)?")
_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(?:(\d+)\.)?(.+)")
_MIDDLE = re.compile(r"middle_block\.(\d+)\.(.+)")


def diffusers_name(name: str, layers_per_block: int, temporal: bool) -> str | None:
    """The diffusers name of an original name, or None for a name that belongs to no such U-Net.

    `temporal` says whether the model has temporal layers, which change the numbers of the spatial ones.
    """
    for original, ours in _ROOTS.items():
        if name.startswith(original + "."):
            return ours + name[len(original) :]
    if match := _BLOCK.fullmatch(name):
        half, number, index, rest = match.groups()
        return _block_name(half, int(number), int(index or 0), rest, layers_per_block)
    if match := _MIDDLE.fullmatch(name):
        return _middle_name(int(match[1]), match[2], last=3 if temporal else 2)
    return None


def _block_name(half: str, number: int, index: int, rest: str, layers_per_block: int) -> str | None:
    """The name of module `index` in block `number`."""
    # Both halves have layers_per_block + 1 numbers per level: the encoder's last is its downsampler.
    level, layer = divmod(number - (half == "input_blocks"), layers_per_block + 1)
    block = f"{'down' if half == 'input_blocks' else 'up'}_blocks.{level}"
    for sampler, called in (("op.", "downsamplers"), ("conv.", "upsamplers")):
        if rest.startswith(sampler):
            return f"{block}.{called}.0.conv.{rest[len(sampler) :]}"
    return _layer_name(block, layer, ("resnets", "attentions", "temp_attentions"), index, rest)


def _middle_name(index: int, rest: str, last: int) -> str | None:
    if index == last:
        return _layer_name("mid_block", 1, ("resnets",), 0, rest)
    return _layer_name("mid_block", 0, ("resnets", "attentions", "temp_attentions"), index, rest)


def _layer_name(block: str, layer: int, kinds: tuple[str, ...], index: int, rest: str) -> str | None:
    if index >= len(kinds):
        return None
    if kinds[index] != "resnets":
        return f"{block}.{kinds[index]}.{layer}.{rest}"
    if rest.startswith(_TEMPORAL_CONV):
        return f"{block}.temp_convs.{layer}.{rest[len(_TEMPORAL_CONV) :]}"
    for original, ours in _RESNET.items():
        if rest.startswith(original + "."):
            return f"{block}.resnets.{layer}.{ours}{rest[len(original) :]}"
    return None


def diffusers_vae_name(name: str, levels: int) -> str:
    """The diffusers name of a weight of Stable Diffusion's autoencoder; diffusers' own names stay."""

    def level(match: re.Match) -> str:
        half, number, layer = match.groups()
        number = int(number) if half == "down" else levels - 1 - int(number)
        return f"{half}_blocks.{number}." + (f"resnets.{layer}." if layer else "")

    name = _VAE_LEVEL.sub(level, name)
    for original, ours in _VAE.items():
        name = name.replace(original, ours)
    return name


def as_linear(name: str, tensor: Tensor) -> Tensor:
    """A weight as diffusers has it: projections of attention are matrices there, and convolutions of width 1 originally."""
    is_projection = name.endswith(("proj_in.weight", "proj_out.weight")) or "mid_block.attentions.0.to_" in name
    return tensor.flatten(1) if is_projection and tensor.ndim > 1 else tensor
