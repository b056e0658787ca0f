"""Weights of a U-Net under the names of latent diffusion and of ModelScope's own code, to diffusers' names.

Both number the layers of the encoder, the middle and the decoder through; diffusers numbers levels and layers of a level.
"""

from __future__ import annotations

import re

from torch import Tensor

_ROOTS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
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
_TEMPORAL_CONV = "temopral_conv."  # sic
_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(?:(\d+)\.)?(.+)")
_MIDDLE = re.compile(r"middle_block\.(\d+)\.(.+)")


def diffusers_name(name: str, layers_per_block: int, temporal: bool) -> str | None:
    """The diffusers name of an original one, or None for a name that is no part of such a U-Net.

    `temporal` says whether the layers of a video model stand between those of the image model.
    """
    for original, ours in _ROOTS.items():
        if name.startswith(original + "."):
            return ours + name[len(original) :]
    if match := _BLOCK.fullmatch(name):
        half, number, place, rest = match.groups()
        return _block_name(half, int(number), int(place or 0), rest, layers_per_block)
    if match := _MIDDLE.fullmatch(name):
        return _middle_name(int(match[1]), match[2], last=3 if temporal else 2)
    return None


def _block_name(half: str, number: int, place: int, rest: str, layers_per_block: int) -> str | None:
    # A level of the encoder ends with the layer that halves, one of the decoder has one more layer.
    level, layer = divmod(number - (half == "input_blocks"), layers_per_block + 1)
    block = f"{'down' if half == 'input_blocks' else 'up'}_blocks.{level}"
    for sampler, called in (("op.", "downsamplers"), ("conv.", "upsamplers")):
        if rest.startswith(sampler):
            return f"{block}.{called}.0.conv.{rest[len(sampler) :]}"
    return _layer_name(block, layer, ("resnets", "attentions", "temp_attentions"), place, rest)


def _middle_name(place: int, rest: str, last: int) -> str | None:
    if place == last:
        return _layer_name("mid_block", 1, ("resnets",), 0, rest)
    return _layer_name("mid_block", 0, ("resnets", "attentions", "temp_attentions"), place, rest)


def _layer_name(block: str, layer: int, kinds: tuple[str, ...], place: int, rest: str) -> str | None:
    if place >= len(kinds):
        return None
    if kinds[place] != "resnets":
        return f"{block}.{kinds[place]}.{layer}.{rest}"
    if rest.startswith(_TEMPORAL_CONV):
        return f"{block}.temp_convs.{layer}.{rest[len(_TEMPORAL_CONV) :]}"
    for original, ours in _RESNET.items():
        if rest.startswith(original + "."):
            return f"{block}.resnets.{layer}.{ours}{rest[len(original) :]}"
    return None


def as_linear(name: str, tensor: Tensor) -> Tensor:
    """Projections around a transformer are convolutions of width 1 in the original and matrices in diffusers."""
    is_projection = name.endswith(("proj_in.weight", "proj_out.weight"))
    return tensor.flatten(1) if is_projection else tensor
