"""The primary U-Net: Stable Diffusion's, with Temp-Conv and Temp-Attn in its blocks (paper, Section 4).

`encode` runs the encoder. Without `ImageConditions` it does not see the picture, so evaluations with the same text share it.
`decode` adds the retention branch's residuals to the skips and runs the decoder. Latents are (B T) C H W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .config import UNetConfig
from .image_conditions import NO_IMAGE, ImageConditions
from .kernels.fused import group_norm, laid_out
from .layers import (
    Attention,
    Downsample2D,
    DualCrossAttention,
    Operations,
    ResnetBlock2D,
    RunAttention,
    TemporalConvLayer,
    TemporalSelfAttention,
    TimestepEmbedding,
    Transformer2DModel,
    TransformerTemporalModel,
    Upsample2D,
    run_attention,
)

_TEMPORAL_MODULES = {"transformer_in", "temp_convs", "temp_attentions"}


def is_temporal(name: str) -> bool:
    """Whether a parameter of this name belongs to a temporal layer."""
    return not _TEMPORAL_MODULES.isdisjoint(name.split("."))


@dataclass(frozen=True)
class Conditioning:
    """What every block of a pass is given beside its features."""

    temb: Tensor  # time embedding (B, C)
    text: Tensor  # (B, N, D)
    tokens: Tensor | None  # image tokens (B T) L D
    num_frames: int
    run: RunAttention


class Encoding(NamedTuple):
    """The primary encoder's output for B clips of T frames, and what the decoder needs beside it."""

    skips: tuple[Tensor, ...]  # one per layer, (B T) C H W each
    mid: Tensor  # the mid block's output, (B T) C H W
    temb: Tensor  # time embedding (B, C)
    text: Tensor  # (B, N, D)
    tokens: Tensor | None = None  # image tokens (B T) L D

    @property
    def num_frames(self) -> int:
        return len(self.mid) // len(self.text)


class Residuals(NamedTuple):
    """The branch's output: one residual per skip, and one for the mid block's output; (B T) C H W each."""

    skips: tuple[Tensor, ...]
    mid: Tensor


class _Level(nn.Module):
    """The layers of one level: each is resnet, Temp-Conv and, where the type has them, spatial transformer and Temp-Attn."""

    part: str  # of the U-Net, as in `Place`

    def __init__(
        self, level: int, widths: list[int], out: int, cross_attention: bool, config: UNetConfig, operations: Operations
    ):
        """`widths` are the channels that each layer takes, `out` is the number that all give."""
        super().__init__()
        # Stable Diffusion counts conv_in as input block 0, and each downsampler as a block behind its level.
        self.first = level * (config.layers_per_block + 1) + (self.part == "input")
        temb, groups, eps = config.block_out_channels[0] * 4, config.norm_num_groups, config.norm_eps
        self.resnets = nn.ModuleList(ResnetBlock2D(w, out, temb, groups, eps, operations) for w in widths)
        self.temp_convs = nn.ModuleList(TemporalConvLayer(out, groups, config.temporal_conv_layers, operations) for _ in widths)
        if cross_attention:
            context, head_dim = config.cross_attention_dim, config.spatial_head_dim(out)
            self.attentions = nn.ModuleList(
                Transformer2DModel(out, context, head_dim, groups, operations, _cross_attention(config)) for _ in widths
            )
        if cross_attention or config.temporal_attention_everywhere:
            self.temp_attentions = nn.ModuleList(_temporal_attention(out, config, operations) for _ in widths)

    def places(self) -> list[tuple[str, int]]:
        """Part and number, as in `Place`, of every layer with a spatial transformer."""
        return [(self.part, self.first + i) for i in range(len(getattr(self, "attentions", ())))]

    def layer(self, i: int, x: Tensor, conditioning: Conditioning) -> Tensor:
        x = self.resnets[i](x, conditioning.temb, conditioning.num_frames)
        x = self.temp_convs[i](x, conditioning.num_frames)
        if hasattr(self, "attentions"):
            place = self.part, self.first + i
            x = self.attentions[i](x, conditioning.text, conditioning.run, *place, conditioning.tokens)
        if hasattr(self, "temp_attentions"):
            x = self.temp_attentions[i](x, conditioning.num_frames, conditioning.run)
        return x


def _cross_attention(config: UNetConfig) -> Callable[..., Attention]:
    if config.image_cross_attention == "none":
        return Attention
    return partial(DualCrossAttention, learned_scale=config.image_cross_attention == "learned_scale")


def _temporal_attention(channels: int, config: UNetConfig, operations: Operations) -> nn.Module:
    head_dim, groups, positions = config.attention_head_dim, config.norm_num_groups, config.temporal_positions
    if config.temporal_attention == "transformer":
        return TransformerTemporalModel(channels, channels, head_dim, groups, positions, operations)
    return TemporalSelfAttention(channels, head_dim, groups, positions, operations)


class DownBlock(_Level):
    """`CrossAttnDownBlock3D` and `DownBlock3D`: gives every layer's output as a skip, and the downsampled one last."""

    part = "input"

    def __init__(self, level: int, config: UNetConfig, operations: Operations):
        out = config.block_out_channels[level]
        widths = [config.block_out_channels[max(level - 1, 0)]] + [out] * (config.layers_per_block - 1)
        super().__init__(level, widths, out, config.down_block_types[level].startswith("CrossAttn"), config, operations)
        if level < len(config.block_out_channels) - 1:
            self.downsamplers = nn.ModuleList([Downsample2D(out, operations)])

    def forward(self, x: Tensor, conditioning: Conditioning) -> list[Tensor]:
        skips = []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, conditioning)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            skips.append(self.downsamplers[0](x))
        return skips


class MidBlock(nn.Module):
    """`UNetMidBlock3DCrossAttn`: resnet and Temp-Conv, spatial transformer and Temp-Attn, resnet and Temp-Conv."""

    def __init__(self, config: UNetConfig, operations: Operations):
        super().__init__()
        channels, groups = config.block_out_channels[-1], config.norm_num_groups
        context, head_dim = config.cross_attention_dim, config.spatial_head_dim(channels)
        temb = config.block_out_channels[0] * 4
        self.resnets = nn.ModuleList(
            ResnetBlock2D(channels, channels, temb, groups, config.norm_eps, operations) for _ in range(2)
        )
        self.temp_convs = nn.ModuleList(
            TemporalConvLayer(channels, groups, config.temporal_conv_layers, operations) for _ in range(2)
        )
        self.attentions = nn.ModuleList(
            [Transformer2DModel(channels, context, head_dim, groups, operations, _cross_attention(config))]
        )
        self.temp_attentions = nn.ModuleList([_temporal_attention(channels, config, operations)])

    def forward(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        x = self.resnets[0](x, conditioning.temb, conditioning.num_frames)
        x = self.temp_convs[0](x, conditioning.num_frames)
        x = self.attentions[0](x, conditioning.text, conditioning.run, "middle", 0, conditioning.tokens)
        x = self.temp_attentions[0](x, conditioning.num_frames, conditioning.run)
        x = self.resnets[1](x, conditioning.temb, conditioning.num_frames)
        return self.temp_convs[1](x, conditioning.num_frames)


MergeSkip = Callable[[Tensor, Tensor], Tensor]


def concatenate(hidden: Tensor, skip: Tensor) -> Tensor:
    """How a decoder layer merges its features and its skip; a host may put its own function here."""
    return torch.cat([hidden, skip], dim=1)


class UpBlock(_Level):
    """`CrossAttnUpBlock3D` and `UpBlock3D`: takes one skip per layer off the end of `skips`."""

    part = "output"

    def __init__(self, level: int, config: UNetConfig, operations: Operations):
        """`level` counts from the decoder's start, as diffusers' `up_blocks` do."""
        channels = config.block_out_channels[::-1]
        out, before, after = channels[level], channels[max(level - 1, 0)], channels[min(level + 1, len(channels) - 1)]
        layers = config.layers_per_block + 1
        # The last skip of a level is the output of the level before it in the encoder, hence its width.
        skips = [out] * (layers - 1) + [after]
        widths = [a + b for a, b in zip([before] + [out] * (layers - 1), skips, strict=True)]
        super().__init__(level, widths, out, config.up_block_types[level].startswith("CrossAttn"), config, operations)
        if level < len(channels) - 1:
            self.upsamplers = nn.ModuleList([Upsample2D(out, operations)])

    def forward(self, x: Tensor, skips: list[Tensor], conditioning: Conditioning, merge: MergeSkip) -> Tensor:
        for i in range(len(self.resnets)):
            x = self.layer(i, laid_out(merge(x, skips.pop())), conditioning)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x, skips[-1].shape[-2:])
        return x


class Encoder(nn.Module):
    """The half that the branch copies: conv_in, time embedding, `transformer_in` where present, down blocks, mid block."""

    def __init__(self, config: UNetConfig, operations: Operations):
        super().__init__()
        channels = config.block_out_channels[0]
        self.conv_in = operations.conv2d(config.in_channels, channels)
        self.time_embedding = TimestepEmbedding(channels, operations)
        if config.fps_embedding:
            self.fps_embedding = TimestepEmbedding(channels, operations)
        if config.transformer_in:
            self.transformer_in = TransformerTemporalModel(
                channels, 8 * config.attention_head_dim, config.attention_head_dim, config.norm_num_groups,
                config.temporal_positions, operations,
            )  # fmt: skip
        self.down_blocks = nn.ModuleList(DownBlock(i, config, operations) for i in range(len(config.block_out_channels)))
        self.mid_block = MidBlock(config, operations)

    def contract(
        self,
        hidden: Tensor,
        timesteps: Tensor,
        text: Tensor,
        num_frames: int,
        run: RunAttention,
        image: ImageConditions = NO_IMAGE,
    ) -> Encoding:
        """From the output of conv_in, (B T) C H W, to the skips and the mid block's output."""
        hidden = laid_out(hidden)
        temb = self.time_embedding(timesteps, hidden.dtype)
        if image.fps is not None:
            temb = temb + self.fps_embedding(image.fps, hidden.dtype)
        conditioning = Conditioning(temb, text, image.tokens, num_frames, run)
        if hasattr(self, "transformer_in"):
            hidden = self.transformer_in(hidden, num_frames, run)
        skips = [hidden]
        for block in self.down_blocks:
            skips += block(skips[-1], conditioning)
        return Encoding(tuple(skips), self.mid_block(skips[-1], conditioning), temb, text, image.tokens)


class UNet(Encoder):
    """The primary U-Net: Stable Diffusion's, with Temp-Conv and Temp-Attn; text to video by itself."""

    def __init__(self, config: UNetConfig, operations: Operations):
        super().__init__(config, operations)
        channels = config.block_out_channels[0]
        self.up_blocks = nn.ModuleList(UpBlock(i, config, operations) for i in range(len(config.block_out_channels)))
        self.conv_norm_out = operations.group_norm(config.norm_num_groups, channels, config.norm_eps)
        self.conv_out = operations.conv2d(channels, config.out_channels)
        down, up = ([place for block in blocks for place in block.places()] for blocks in (self.down_blocks, self.up_blocks))
        # Part and number, as in `Place`, of every block with a spatial transformer, in their order.
        self.attention_blocks: list[tuple[str, int]] = [*down, ("middle", 0), *up]

    def encode(
        self,
        latents: Tensor,
        timesteps: Tensor,
        text: Tensor,
        num_frames: int,
        image: ImageConditions = NO_IMAGE,
        run: RunAttention = run_attention,
    ) -> Encoding:
        if image.latents is not None:
            latents = torch.cat([latents, image.latents], dim=1)
        return self.contract(self.conv_in(latents), timesteps, text, num_frames, run, image)

    def decode(
        self,
        encoding: Encoding,
        residuals: Residuals | None = None,
        merge: MergeSkip = concatenate,
        run: RunAttention = run_attention,
    ) -> Tensor:
        """The prediction, (B T) C H W. Residuals are added to the skips before the decoder takes them up."""
        skips, hidden = list(encoding.skips), encoding.mid
        conditioning = Conditioning(encoding.temb, encoding.text, encoding.tokens, encoding.num_frames, run)
        if residuals is not None:
            skips = [skip + residual for skip, residual in zip(skips, residuals.skips, strict=True)]
            hidden = hidden + residuals.mid
        for block in self.up_blocks:
            hidden = block(hidden, skips, conditioning, merge)
        return self.conv_out(group_norm(self.conv_norm_out, hidden, silu=True))


def skip_channels(config: UNetConfig) -> list[int]:
    """The widths of the encoder's skip tensors, in order."""
    widths = [config.block_out_channels[0]]
    for level, channels in enumerate(config.block_out_channels):
        last = level == len(config.block_out_channels) - 1
        widths += [channels] * (config.layers_per_block + (not last))
    return widths
