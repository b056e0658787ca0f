"""Layers of the U-Net, bottom-up. A batch of clips is (B T) C H W; T is given as `num_frames`.

Parameter names are those of diffusers' `UNet3DConditionModel`. `Operations` makes every layer that has weights, so that a host
can bring its own layers (casting, offloading) and its own attention.
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

from .kernels.fused import Lend, add_layer_norm, attends_in_place, attention_over_time, geglu, group_norm, layer_norm, lend

_TOKENS = 512  # that a feed-forward takes at a time on a CPU
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
class Operations:
    """Makes every layer that has weights.

    `layers` is a namespace shaped like torch.nn, such as ComfyUI's `operations`. `lend` gives a kernel the weights of a layer
    whose place it takes (kernels/fused.py).
    """

    layers: Any = nn
    attention: Attend = attention
    lend: Lend = lend
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None

    def linear(self, in_features: int, out_features: int, bias: bool = True) -> nn.Module:
        return self.layers.Linear(in_features, out_features, bias=bias, dtype=self.dtype, device=self.device)

    def conv2d(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        return self.layers.Conv2d(
            in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, dtype=self.dtype, device=self.device
        )

    def temporal_conv(self, in_channels: int, out_channels: int) -> nn.Module:
        """A Conv3d for clips (B, C, T, H W): its names and weights are of three dimensions, for files and for a host."""
        conv = self.layers.Conv3d(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0), dtype=self.dtype, device=self.device)
        conv._conv_forward = convolve_over_time  # what Conv3d.forward calls, with the weights that a host has cast
        return conv

    def group_norm(self, groups: int, channels: int, eps: float) -> nn.Module:
        norm = self.layers.GroupNorm(groups, channels, eps=eps, dtype=self.dtype, device=self.device)
        norm.lend = self.lend
        return norm

    def layer_norm(self, channels: int) -> nn.Module:
        norm = self.layers.LayerNorm(channels, dtype=self.dtype, device=self.device)
        norm.lend = self.lend
        return norm


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Cosines then sines of (N,) positions at geometrically falling frequencies: (N, dim), float32."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Timesteps (B,) to embeddings (B, 4 channels)."""

    def __init__(self, channels: int, operations: Operations):
        super().__init__()
        self.channels = channels
        self.linear_1 = operations.linear(channels, channels * 4)
        self.linear_2 = operations.linear(channels * 4, channels * 4)

    def forward(self, timesteps: Tensor, dtype: torch.dtype) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoids(timesteps, self.channels).to(dtype))))


class ResnetBlock2D(nn.Module):
    """Two 3 x 3 convolutions on each frame, the time embedding added between them."""

    def __init__(
        self, in_channels: int, out_channels: int, temb_channels: int, groups: int, eps: float, operations: Operations
    ):
        super().__init__()
        self.norm1 = operations.group_norm(groups, in_channels, eps)
        self.conv1 = operations.conv2d(in_channels, out_channels)
        self.time_emb_proj = operations.linear(temb_channels, out_channels)
        self.norm2 = operations.group_norm(groups, out_channels, eps)
        self.conv2 = operations.conv2d(out_channels, out_channels)
        self.conv_shortcut = operations.conv2d(in_channels, out_channels, kernel=1) if in_channels != out_channels else None

    def forward(self, x: Tensor, temb: Tensor, num_frames: int) -> Tensor:
        hidden = self.conv1(group_norm(self.norm1, x, silu=True))
        hidden += repeat(self.time_emb_proj(F.silu(temb)), "b c -> (b t) c 1 1", t=num_frames)
        hidden = self.conv2(group_norm(self.norm2, hidden, silu=True))
        hidden += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return hidden


def _over_time(x: Tensor, num_frames: int) -> Tensor:
    """(B T) C H W to (B, C, T, H W); for a single clip `rearrange` would give strides that make group norms copy."""
    return x.unflatten(0, (-1, num_frames)).flatten(3).transpose(1, 2)


class TemporalConvLayer(nn.Module):
    """Temp-Conv: (3, 1, 1) convolutions over time around a residual, the last one initialised to zero."""

    def __init__(self, channels: int, groups: int, layers: int, operations: Operations):
        super().__init__()
        self.layers = layers
        for i in range(1, layers + 1):
            # Identities stand in the place of diffusers' SiLU and dropout, so that the parameters' names are the same.
            steps = [operations.group_norm(groups, channels, 1e-5), nn.Identity()] + [nn.Identity()] * (i > 1)
            self.add_module(f"conv{i}", nn.Sequential(*steps, operations.temporal_conv(channels, channels)))

    def zero(self) -> None:
        last = getattr(self, f"conv{self.layers}")[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        hidden = _over_time(x, num_frames)
        for i in range(1, self.layers + 1):
            norm, *_, conv = getattr(self, f"conv{i}")
            hidden = conv(group_norm(norm, hidden, silu=True))
        return x + rearrange(hidden, "b c t (h w) -> (b t) c h w", h=x.shape[-2])


class Attention(nn.Module):
    """Queries from tokens (B, N, C), keys and values from `context` (B, M, D) or, without one, from the same tokens.

    Tokens (B, T, N, C) attend over T alone, by a kernel; `attends_in_place` says where there is one.
    """

    def __init__(self, channels: int, context_dim: int | None, head_dim: int, operations: Operations):
        super().__init__()
        self.heads, self.attend = channels // head_dim, operations.attention
        self.to_q = operations.linear(channels, channels, bias=False)
        self.to_k = operations.linear(context_dim or channels, channels, bias=False)
        self.to_v = operations.linear(context_dim or channels, channels, bias=False)
        self.to_out = nn.ModuleList([operations.linear(channels, channels)])

    def forward(
        self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None, attend: Attend | None = None
    ) -> Tensor:
        """Values are made from `value` where it is given, else from `context`; `attend` replaces the layer's own attention."""
        context = x if context is None else context
        value = context if value is None else value
        attend = attend or (self.attend if x.ndim == 3 else attention_over_time)
        return self.to_out[0](attend(self.to_q(x), self.to_k(context), self.to_v(value), self.heads))


class DualCrossAttention(Attention):
    """Attention to the text and to image tokens, summed (DynamiCrafter, arXiv 2310.12190; IP-Adapter, arXiv 2308.06721).

    Both have the same queries. With `learned_scale` the second is multiplied by tanh(alpha) + 1.
    """

    def __init__(self, channels: int, context_dim: int, head_dim: int, operations: Operations, learned_scale: bool = False):
        super().__init__(channels, context_dim, head_dim, operations)
        self.to_k_ip = operations.linear(context_dim, channels, bias=False)
        self.to_v_ip = operations.linear(context_dim, channels, bias=False)
        alpha = nn.Parameter(torch.zeros((), dtype=operations.dtype, device=operations.device)) if learned_scale else None
        self.register_parameter("alpha", alpha)

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        value: Tensor | None = None,
        attend: Attend | None = None,
        image: Tensor | None = None,
        attend_image: Attend | None = None,
    ) -> Tensor:
        """As `Attention`, with image tokens (B F, L, D) for the F frames that each row of `x` (B, F N, C) holds.

        `attend` replaces the layer's own attention to the text, `attend_image` that to the image.
        """
        query = self.to_q(x)
        made = (attend or self.attend)(query, self.to_k(context), self.to_v(context if value is None else value), self.heads)
        if image is not None:
            frames = query.reshape(len(image), -1, query.shape[-1])
            seen = (attend_image or self.attend)(frames, self.to_k_ip(image), self.to_v_ip(image), self.heads).view_as(made)
            made = made + (seen if self.alpha is None else seen * (self.alpha.to(seen).tanh() + 1))
        return self.to_out[0](made)


class GEGLU(nn.Module):
    def __init__(self, in_features: int, out_features: int, operations: Operations):
        super().__init__()
        self.proj = operations.linear(in_features, out_features * 2)

    def forward(self, x: Tensor) -> Tensor:
        return geglu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, channels: int, operations: Operations):
        super().__init__()
        # The identity stands in the place of diffusers' dropout, so that the parameters' names are the same.
        self.net = nn.Sequential(
            GEGLU(channels, channels * 4, operations), nn.Identity(), operations.linear(channels * 4, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.net(x)
        # The inner activations of few tokens stay in a CPU's caches; those of all tokens would go through memory.
        parts = x.flatten(0, -2).split(_TOKENS)
        return torch.cat([self.net(part) for part in parts]).view_as(x)


class Place(NamedTuple):
    """Where a spatial transformer block stands in the U-Net, counted as in Stable Diffusion's original code.

    `part` is "input", "middle" or "output", `number` the block of that part, `depth` the transformer block in it.
    """

    part: str
    number: int
    depth: int = 0


RunAttention = Callable[..., Tensor]  # with the parameters of `run_attention`


def run_attention(
    layer: Attention, x: Tensor, context: Tensor | None = None, place: Place | None = None, image: Tensor | None = None
) -> Tensor:
    """How a pass runs an attention layer on tokens (B T, N, C); a host may put its own function here.

    `context` (B, M, D) is the text of a clip: all its frames query it at once, so its keys and values are computed once.
    `image` (B T, L, D) are image tokens of each frame, for a `DualCrossAttention`. `place` is None for layers over time.
    """
    if context is None:
        return layer(x)
    tokens = rearrange(x, "(b t) n c -> b (t n) c", b=len(context))
    made = layer(tokens, context) if image is None else layer(tokens, context, image=image)
    return rearrange(made, "b (t n) c -> (b t) n c", n=x.shape[1])


class BasicTransformerBlock(nn.Module):
    """Self-attention, attention to `context` (self-attention again without `context_dim`), feed-forward."""

    def __init__(
        self,
        channels: int,
        context_dim: int | None,
        head_dim: int,
        operations: Operations,
        cross_attention: Callable[..., Attention] = Attention,
    ):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (operations.layer_norm(channels) for _ in range(3))
        self.attn1 = Attention(channels, None, head_dim, operations)
        self.attn2 = cross_attention(channels, context_dim, head_dim, operations)
        self.ff = FeedForward(channels, operations)

    def forward(
        self,
        x: Tensor,
        run: RunAttention,
        context: Tensor | None = None,
        place: Place | None = None,
        image: Tensor | None = None,
    ) -> Tensor:
        x, normed = add_layer_norm(self.norm2, x, run(self.attn1, layer_norm(self.norm1, x), None, place))
        x, normed = add_layer_norm(self.norm3, x, run(self.attn2, normed, context, place, image))
        return x + self.ff(normed)


class Transformer2DModel(nn.Module):
    """Spatial self-attention within each frame, cross-attention to the clip's text."""

    def __init__(
        self,
        channels: int,
        context_dim: int,
        head_dim: int,
        groups: int,
        operations: Operations,
        cross_attention: Callable[..., Attention] = Attention,
    ):
        super().__init__()
        self.norm = operations.group_norm(groups, channels, 1e-6)
        self.proj_in = operations.linear(channels, channels)
        block = BasicTransformerBlock(channels, context_dim, head_dim, operations, cross_attention)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.linear(channels, channels)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        run: RunAttention = run_attention,
        part: str = "middle",
        number: int = 0,
        image: Tensor | None = None,
    ) -> Tensor:
        """`x` (B T) C H W, `context` (B, M, D), `image` (B T) L D; `part` and `number` say where in the U-Net this is."""
        height = x.shape[-2]
        tokens = self.proj_in(rearrange(group_norm(self.norm, x), "b c h w -> b (h w) c"))
        for depth, block in enumerate(self.transformer_blocks):
            tokens = block(tokens, run, context, Place(part, number, depth), image)
        return x + rearrange(self.proj_out(tokens), "b (h w) c -> b c h w", h=height)


class _TemporalLayer(nn.Module):
    """Attention over time for each place of the picture, behind a group norm over the whole clip; the base of Temp-Attn."""

    def __init__(self, channels: int, groups: int, positions: bool, operations: Operations):
        super().__init__()
        self.positions = positions
        self.norm = operations.group_norm(groups, channels, 1e-6)

    def forward(self, x: Tensor, num_frames: int, run: RunAttention = run_attention) -> Tensor:
        height, width = x.shape[-2:]
        hidden = group_norm(self.norm, _over_time(x, num_frames))
        in_place = run is run_attention and attends_in_place(hidden)  # a host's function takes (B H W, T, C)
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

    def __init__(self, channels: int, inner: int, head_dim: int, groups: int, positions: bool, operations: Operations):
        super().__init__(channels, groups, positions, operations)
        self.proj_in = operations.linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([BasicTransformerBlock(inner, None, head_dim, operations)])
        self.proj_out = operations.linear(inner, channels)

    def mix(self, tokens: Tensor, run: RunAttention) -> Tensor:
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, run)
        return self.proj_out(tokens)


class TemporalSelfAttention(_TemporalLayer):
    """Temp-Attn as one self-attention over time, without projections or feed-forward."""

    def __init__(self, channels: int, head_dim: int, groups: int, positions: bool, operations: Operations):
        super().__init__(channels, groups, positions, operations)
        self.attn = Attention(channels, None, head_dim, operations)

    def zero(self) -> None:
        nn.init.zeros_(self.attn.to_out[0].weight)
        nn.init.zeros_(self.attn.to_out[0].bias)

    def mix(self, tokens: Tensor, run: RunAttention) -> Tensor:
        return run(self.attn, tokens, None, None)


class Downsample2D(nn.Module):
    def __init__(self, channels: int, operations: Operations):
        super().__init__()
        self.conv = operations.conv2d(channels, channels, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample2D(nn.Module):
    """Nearest neighbour to `size`, the size of the skip that comes next, so that odd sizes fit; then a convolution."""

    def __init__(self, channels: int, operations: Operations):
        super().__init__()
        self.conv = operations.conv2d(channels, channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
