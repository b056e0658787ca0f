"""Layers of the U-Net, bottom-up. Inside, a batch of clips is (B T) C H W, and T travels as `num_frames`.

Parameter names are those of diffusers' `UNet3DConditionModel`. Every layer with weights comes from a `LayerFactory`,
so that a host can bring its own operations (casting, offloading) and attention. Where kernels take a layer's place
(`fused.py`) they get its weights by `lend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .kernels.fused import Lend, attends_in_place, attention_over_time, fused_group_norm, fused_layer_norm, geglu, lend

_TOKENS = 512  # of a feed-forward on a CPU
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # of queries, keys, values and the number of heads


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of (B, N, heads x D) over (B, M, heads x D)."""
    query, key, value = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (query, key, value))
    return rearrange(F.scaled_dot_product_attention(query, key, value), "b h n d -> b n (h d)")


def convolve_over_time(x: Tensor, weight: Tensor, bias: Tensor | None, **kwargs: Any) -> Tensor:
    """(B, I, T, H W) by a Conv3d's weights (O, I, 3, 1, 1), zeros around T, to (B, O, T, H W).

    Takes the place of a Conv3d's `_conv_forward`: in two dimensions it is up to twice as fast. A host may give more arguments.
    """
    return F.conv2d(x, weight[..., 0], bias, padding=(1, 0))


@dataclass(frozen=True)
class LayerFactory:
    """Makes every layer that has weights; `operations` is a namespace shaped like torch.nn."""

    operations: Any = nn
    attention: Attend = attention
    lend: Lend = lend
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        return self.operations.Linear(in_features, out_features, bias=bias, dtype=self.dtype, device=self.device)

    def conv2d(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        return self.operations.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, dtype=self.dtype, device=self.device
        )

    def temporal_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        """A Conv3d for clips (B, C, T, H W): its names and weights are of three dimensions, for files and for a host."""
        conv = self.operations.Conv3d(
            in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0), dtype=self.dtype, device=self.device
        )
        conv._conv_forward = convolve_over_time  # what Conv3d.forward calls, with the weights that a host has cast
        return conv

    def group_norm(self, groups: int, channels: int, eps: float, silu: bool = False) -> nn.Module:
        make = fused_group_norm(self.operations.GroupNorm, self.lend)
        norm = make(groups, channels, eps=eps, dtype=self.dtype, device=self.device)
        norm.silu = silu
        return norm

    def layer_norm(self, channels: int) -> nn.Module:
        return fused_layer_norm(self.operations.LayerNorm, self.lend)(channels, dtype=self.dtype, device=self.device)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Cosines then sines of (N,) positions at geometrically falling frequencies: (N, dim), float32."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Timesteps (B,) to embeddings (B, 4 channels)."""

    def __init__(self, channels: int, make: LayerFactory):
        super().__init__()
        self.channels = channels
        self.linear_1 = make.linear(channels, channels * 4)
        self.linear_2 = make.linear(channels * 4, channels * 4)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoids(timesteps, self.channels).to(dtype))))


class ResnetBlock2D(nn.Module):
    """Two 3 x 3 convolutions on each frame, the time embedding added between them."""

    def __init__(self, in_channels: int, out_channels: int, temb_channels: int, groups: int, eps: float, make: LayerFactory):
        super().__init__()
        self.norm1 = make.group_norm(groups, in_channels, eps, silu=True)
        self.conv1 = make.conv2d(in_channels, out_channels)
        self.time_emb_proj = make.linear(temb_channels, out_channels)
        self.norm2 = make.group_norm(groups, out_channels, eps, silu=True)
        self.conv2 = make.conv2d(out_channels, out_channels)
        self.conv_shortcut = make.conv2d(in_channels, out_channels, kernel=1) if in_channels != out_channels else None

    def forward(self, x: Tensor, temb: Tensor, num_frames: int) -> Tensor:
        hidden = self.conv1(self.norm1(x))
        hidden += repeat(self.time_emb_proj(F.silu(temb)), "b c -> (b t) c 1 1", t=num_frames)
        hidden = self.conv2(self.norm2(hidden))
        hidden += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return hidden


def _over_time(x: Tensor, num_frames: int) -> Tensor:
    """(B T) C H W to (B, C, T, H W). By `transpose`: for one clip `rearrange` sets a batch stride that makes norms copy."""
    return x.unflatten(0, (-1, num_frames)).flatten(3).transpose(1, 2)


class TemporalConvLayer(nn.Module):
    """Temp-Conv: (3, 1, 1) convolutions over time around a residual, the last one initialised to zero."""

    def __init__(self, channels: int, groups: int, layers: int, make: LayerFactory):
        super().__init__()
        self.layers = layers
        for i in range(1, layers + 1):
            # diffusers has SiLU as a layer and a dropout in all but the first, which move the convolution's index.
            steps = [make.group_norm(groups, channels, 1e-5, silu=True), nn.Identity()] + [nn.Identity()] * (i > 1)
            self.add_module(f"conv{i}", nn.Sequential(*steps, make.temporal_conv(channels, channels)))

    def zero(self) -> None:
        last = getattr(self, f"conv{self.layers}")[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        hidden = _over_time(x, num_frames)
        for i in range(1, self.layers + 1):
            hidden = getattr(self, f"conv{i}")(hidden)
        return x + rearrange(hidden, "b c t (h w) -> (b t) c h w", h=x.shape[-2])


class Attention(nn.Module):
    """Queries from (B, N, C), keys and values from `context` (B, M, D) or, without one, from the same tokens.

    Tokens (B, T, N, C), which `attends_in_place` allows, attend over T alone, by the kernel for that.
    """

    def __init__(self, channels: int, context_dim: int | None, head_dim: int, make: LayerFactory):
        super().__init__()
        self.heads, self.attend = channels // head_dim, make.attention
        self.to_q = make.linear(channels, channels, bias=False)
        self.to_k = make.linear(context_dim or channels, channels, bias=False)
        self.to_v = make.linear(context_dim or channels, channels, bias=False)
        self.to_out = nn.ModuleList([make.linear(channels, channels)])

    def forward(
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        """`value` is what values are made from where that is not `context`; `attend` takes the place of the layer's own."""
        context = x if context is None else context
        value = context if value is None else value
        attend = attend or (self.attend if x.ndim == 3 else attention_over_time)
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(value), self.heads))


class GEGLU(nn.Module):
    def __init__(self, in_features: int, out_features: int, make: LayerFactory):
        super().__init__()
        self.proj = make.linear(in_features, out_features * 2)

    def forward(self, x: Tensor) -> Tensor:
        return geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, channels: int, make: LayerFactory):
        super().__init__()
        # The middle entry stands where diffusers has its dropout, for the names.
        self.net = nn.Sequential(GEGLU(channels, channels * 4, make), nn.Identity(), make.linear(channels * 4, channels))

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.net(x)
        # What few tokens make stays in a CPU's caches; what all of them make is written to memory and read again.
        parts = x.flatten(0, -2).split(_TOKENS)
        return torch.cat([self.net(part) for part in parts]).view_as(x)


class Place(NamedTuple):
    """Where a spatial transformer block stands in the U-Net, counted as in Stable Diffusion's original code.

    `part` is "input", "middle" or "output", `number` the block of that part, `depth` the transformer block in it.
    """

    part: str
    number: int
    depth: int = 0


RunAttention = Callable[[Attention, Tensor, Tensor | None, Place | None], Tensor]


def run_attention(layer: Attention, x: Tensor, context: Tensor | None = None, place: Place | None = None) -> Tensor:
    """How a pass runs an attention layer on tokens (B T, N, C); a host may put its own function here.

    `context` (B, M, D) is one text for all frames of a clip: they query it together, so its keys and values are computed once.
    `place` is None for layers over time.
    """
    if context is None:
        return layer(x)
    tokens = rearrange(x, "(b t) n c -> b (t n) c", b=len(context))
    return rearrange(layer(tokens, context), "b (t n) c -> (b t) n c", n=x.shape[1])


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to `context` (self-attention again without `context_dim`), feed-forward."""

    def __init__(self, channels: int, context_dim: int | None, head_dim: int, make: LayerFactory):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (make.layer_norm(channels) for _ in range(3))
        self.attn1 = Attention(channels, None, head_dim, make)
        self.attn2 = Attention(channels, context_dim, head_dim, make)
        self.ff = FeedForward(channels, make)

    def forward(self, x: Tensor, run: RunAttention, context: Tensor | None = None, place: Place | None = None) -> Tensor:
        x, normed = self.norm2.add_norm(x, run(self.attn1, self.norm1(x), None, place))
        x, normed = self.norm3.add_norm(x, run(self.attn2, normed, context, place))
        return x + self.ff(normed)


class Transformer2DModel(nn.Module):
    """Spatial self-attention within each frame, cross-attention to the clip's text."""

    def __init__(self, channels: int, context_dim: int, head_dim: int, groups: int, make: LayerFactory):
        super().__init__()
        self.norm = make.group_norm(groups, channels, 1e-6)
        self.proj_in = make.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(channels, context_dim, head_dim, make)])
        self.proj_out = make.linear(channels, channels)

    def forward(
        self, x: Tensor, context: Tensor, run: RunAttention = run_attention, part: str = "middle", number: int = 0
    ) -> Tensor:
        """`x` (B T) C H W, `context` (B, M, D); `part` and `number` say where in the U-Net this is."""
        height = x.shape[-2]
        tokens = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        for depth, block in enumerate(self.transformer_blocks):
            tokens = block(tokens, run, context, Place(part, number, depth))
        return x + rearrange(self.proj_out(tokens), "b (h w) c -> b c h w", h=height)


class _TemporalLayer(nn.Module):
    """Tokens of one place over time, normalised over the whole clip; subclasses say what happens to them."""

    def __init__(self, channels: int, groups: int, positions: bool, make: LayerFactory):
        super().__init__()
        self.positions = positions
        self.norm = make.group_norm(groups, channels, 1e-6)

    def forward(self, x: Tensor, num_frames: int, run: RunAttention = run_attention) -> Tensor:
        height, width = x.shape[-2:]
        hidden = self.norm(_over_time(x, num_frames))
        in_place = run is run_attention and attends_in_place(hidden)  # a host's function is given tokens of one place
        axes = "b t (h w) c" if in_place else "(b h w) t c"
        tokens = rearrange(hidden, f"b c t (h w) -> {axes}", h=height)
        if self.positions:
            positions = sinusoids(torch.arange(num_frames, device=x.device), x.shape[1]).to(tokens.dtype)
            tokens = tokens + (positions if tokens.ndim == 3 else positions[:, None])
        return x + rearrange(self.mix(tokens, run), f"{axes} -> (b t) c h w", h=height, w=width)

    def mix(self, tokens: Tensor, run: RunAttention) -> Tensor:
        """Tokens (B H W, T, C) or (B, T, H W, C) to their residual."""
        raise NotImplementedError


class TransformerTemporalModel(_TemporalLayer):
    """ModelScope's Temp-Attn: a whole transformer block over time, its second attention a self-attention too."""

    def __init__(self, channels: int, inner: int, head_dim: int, groups: int, positions: bool, make: LayerFactory):
        super().__init__(channels, groups, positions, make)
        self.proj_in = make.linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(inner, None, head_dim, make)])
        self.proj_out = make.linear(inner, channels)

    def mix(self, tokens: Tensor, run: RunAttention) -> Tensor:
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, run)
        return self.proj_out(tokens)


class TemporalSelfAttention(_TemporalLayer):
    """Temp-Attn as one self-attention over time, without projections or feed-forward."""

    def __init__(self, channels: int, head_dim: int, groups: int, positions: bool, make: LayerFactory):
        super().__init__(channels, groups, positions, make)
        self.attn = Attention(channels, None, head_dim, make)

    def zero(self) -> None:
        nn.init.zeros_(self.attn.to_out[0].weight)
        nn.init.zeros_(self.attn.to_out[0].bias)

    def mix(self, tokens: Tensor, run: RunAttention) -> Tensor:
        return run(self.attn, tokens, None, None)


class Downsample2D(nn.Module):
    def __init__(self, channels: int, make: LayerFactory):
        super().__init__()
        self.conv = make.conv2d(channels, channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample2D(nn.Module):
    """Nearest neighbour to `size`, the size of the skip that comes next, so that odd sizes fit; then a convolution."""

    def __init__(self, channels: int, make: LayerFactory):
        super().__init__()
        self.conv = make.conv2d(channels, channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
