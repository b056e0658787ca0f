"""Temporal layers, written out place by place; a spatial transformer, frame by frame."""

import math

import pytest
import torch
import torch.nn.functional as F

from dreamvideo_core.models.layers import Attention, Operations, TemporalConvLayer, TemporalSelfAttention, Transformer2DModel

CHANNELS, HEAD, GROUPS, FRAMES, HEIGHT, WIDTH = 16, 8, 4, 3, 2, 5


def clips() -> torch.Tensor:
    """Two clips (B T) C H W."""
    return torch.randn(2 * FRAMES, CHANNELS, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def attend(layer: Attention, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) V of (N, C) over (M, D), head by head."""
    heads = []
    for start in range(0, CHANNELS, HEAD):
        rows = slice(start, start + HEAD)
        query, key, value = (
            x @ w.weight[rows].T for x, w in ((tokens, layer.to_q), (context, layer.to_k), (context, layer.to_v))
        )
        heads.append((query @ key.T / math.sqrt(HEAD)).softmax(-1) @ value)
    return layer.to_out[0](torch.cat(heads, dim=-1))


@torch.no_grad()
@pytest.mark.parametrize("positions", [False, True])
def test_temporal_self_attention_joins_the_frames_of_each_place(positions):
    torch.manual_seed(0)
    layer, x = TemporalSelfAttention(CHANNELS, HEAD, GROUPS, positions, Operations()), clips()
    frequencies = 10000.0 ** (-torch.arange(CHANNELS // 2) / (CHANNELS // 2))
    angles = torch.arange(FRAMES)[:, None] * frequencies
    places = torch.cat([angles.cos(), angles.sin()], dim=-1) * positions
    expected = x.clone()
    for clip in range(2):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        whole = x[rows].transpose(0, 1)[None]  # normalised over all its frames together
        normed = F.group_norm(whole, GROUPS, layer.norm.weight, layer.norm.bias, 1e-6)[0]
        for row in range(HEIGHT):
            for column in range(WIDTH):
                tokens = normed[:, :, row, column].T + places
                expected[rows, :, row, column] += attend(layer.attn, tokens, tokens)
    torch.testing.assert_close(layer(x, FRAMES), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_temporal_convolutions_keep_places_apart():
    torch.manual_seed(0)
    layer, x = TemporalConvLayer(CHANNELS, GROUPS, 2, Operations()), clips()
    expected = x.clone()
    for clip in range(2):
        rows = slice(clip * FRAMES, (clip + 1) * FRAMES)
        hidden = x[rows].permute(1, 0, 2, 3)[None]
        for steps in (layer.conv1, layer.conv2):
            hidden = F.silu(F.group_norm(hidden, GROUPS, steps[0].weight, steps[0].bias, 1e-5))
            padded = F.pad(hidden, (0, 0, 0, 0, 1, 1))
            weight = steps[-1].weight[..., 0, 0]
            hidden = sum(torch.einsum("oi,bithw->bothw", weight[..., k], padded[:, :, k : k + FRAMES]) for k in range(3))
            hidden = hidden + steps[-1].bias[:, None, None, None]
        expected[rows] += hidden[0].permute(1, 0, 2, 3)
    torch.testing.assert_close(layer(x, FRAMES), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_every_frame_attends_to_the_text_of_its_own_clip():
    torch.manual_seed(0)
    layer, x, text = Transformer2DModel(CHANNELS, 12, HEAD, GROUPS, Operations()), clips(), torch.randn(2, 7, 12)
    together = layer(x, text)
    for frame in range(2 * FRAMES):
        alone = layer(x[frame : frame + 1], text[frame // FRAMES][None])
        torch.testing.assert_close(together[frame : frame + 1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_cross_attention_written_out():
    torch.manual_seed(0)
    layer, tokens, context = Attention(CHANNELS, 12, HEAD, Operations()), torch.randn(6, CHANNELS), torch.randn(4, 12)
    got = layer(tokens[None], context[None])[0]
    torch.testing.assert_close(got, attend(layer, tokens, context), rtol=1e-4, atol=1e-5)
