"""What a picture gives to a U-Net that sees it by itself, without a retention branch (DynamiCrafter, arXiv 2310.12190).

Its VAE latents are concatenated to the noisy ones, and tokens made of CLIP's view of it stand beside the text in
cross-attention.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from .config import ResamplerConfig
from .layers import Operations


class ImageConditions(NamedTuple):
    """The inputs of a U-Net beside latents, timestep and text, for B clips of T frames; None for those it does not have."""

    latents: Tensor | None = None  # (B T) C h w, concatenated to the noisy latents
    tokens: Tensor | None = None  # (B T) L D, for cross-attention of each frame
    fps: Tensor | None = None  # (B,), frames per second or the stride between frames

    def to(self, dtype: torch.dtype) -> ImageConditions:
        """In the precision of a U-Net; `fps` stays what it is."""
        latents, tokens = (None if tensor is None else tensor.to(dtype) for tensor in (self.latents, self.tokens))
        return ImageConditions(latents, tokens, self.fps)


NO_IMAGE = ImageConditions()


def image_latents(kind: str, pictures: Tensor, num_frames: int) -> Tensor | None:
    """The latents of one or two pictures a clip, (B, K, C, h, w), over its frames: (B T) C h w.

    "repeat" has the first picture in every frame, "ends" the first and the last picture at both ends and zeros between.
    """
    if kind == "none":
        return None
    if kind == "repeat":
        return repeat(pictures[:, 0], "b c h w -> (b t) c h w", t=num_frames)
    frames = pictures.new_zeros(len(pictures), num_frames, *pictures.shape[2:])
    if pictures.shape[1] > 1:
        frames[:, -1] = pictures[:, 1]
    frames[:, 0] = pictures[:, 0]
    return frames.flatten(0, 1)


class PerceiverAttention(nn.Module):
    """Queries attend to features and to themselves (Flamingo, arXiv 2204.14198)."""

    def __init__(self, channels: int, heads: int, head_dim: int, operations: Operations):
        super().__init__()
        self.heads, self.attend = heads, operations.attention
        self.norm1, self.norm2 = operations.layer_norm(channels), operations.layer_norm(channels)
        self.to_q = operations.linear(channels, heads * head_dim, bias=False)
        self.to_kv = operations.linear(channels, 2 * heads * head_dim, bias=False)
        self.to_out = operations.linear(heads * head_dim, channels, bias=False)

    def forward(self, features: Tensor, queries: Tensor) -> Tensor:
        """Features (B, N, C) and queries (B, M, C) to (B, M, C)."""
        normed = self.norm2(queries)
        keys, values = self.to_kv(torch.cat([self.norm1(features), normed], dim=1)).chunk(2, dim=-1)
        return self.to_out(self.attend(self.to_q(normed), keys, values, self.heads))


class Resampler(nn.Module):
    """CLIP vision's last hidden state (B, N, E) to tokens for each frame of a clip, (B T) L D.

    Parameter names are those of DynamiCrafter's `image_proj_model`, which are IP-Adapter's.
    """

    def __init__(self, config: ResamplerConfig, operations: Operations):
        super().__init__()
        width, self.num_frames = config.width, config.num_frames
        shape = 1, config.num_queries * config.num_frames, width
        queries = torch.randn(shape, device=operations.device) / width**0.5
        self.latents = nn.Parameter(queries.to(operations.dtype or queries.dtype))  # fp8 cannot be drawn
        self.proj_in = operations.linear(config.embedding_dim, width)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(width, config.num_attention_heads, config.attention_head_dim, operations),
                    nn.Sequential(
                        operations.layer_norm(width),
                        operations.linear(width, 4 * width, bias=False),
                        nn.GELU(),
                        operations.linear(4 * width, width, bias=False),
                    ),
                ]
            )
            for _ in range(config.depth)
        )
        self.proj_out = operations.linear(width, config.cross_attention_dim)
        self.norm_out = operations.layer_norm(config.cross_attention_dim)

    def forward(self, hidden: Tensor) -> Tensor:
        features = self.proj_in(hidden)
        queries = self.latents.to(features).expand(len(hidden), -1, -1)
        for attention, feed_forward in self.layers:
            queries = queries + attention(features, queries)
            queries = queries + feed_forward(queries)
        return rearrange(self.norm_out(self.proj_out(queries)), "b (t l) d -> (b t) l d", t=self.num_frames)
