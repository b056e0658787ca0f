"""Convolutions with three taps along an axis by Winograd's algorithm (Lavin and Gray, arXiv 1509.09308).

F(m, 3) makes m outputs of m + 2 inputs with m + 2 multiplications in place of 3 m; over two axes both numbers are squared.
Overlapping tiles of inputs, and taps, are transformed by small matrices; at every point one product of matrices sums over the
channels; a third small matrix turns products into outputs.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Interpolation points of F(m, 3) beside infinity. For m = 4 these round least of those tried, half as much as 0, 1, -1, 2, -2.
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 3 / 2, -3 / 2, 2 / 3, -2 / 3)}
_LEAST_TILES = 64  # with which m = 4 pays in two dimensions: its transformed taps take 36/16 of the memory of m = 2's
_INPUTS, _TAPS = 6 * 2**20, 4 * 2**20  # transformed values at once, where images allow it: malloc keeps buffers below 32 MiB


class _Transforms(NamedTuple):
    """Lavin and Gray's B^T, G and A^T along one axis, or their Kronecker products for both."""

    inputs: Tensor
    taps: Tensor
    outputs: Tensor


def conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, I, H, W), taps (O, I, 3, 3), padding 1, to (N, O, H, W), channels last; float32."""
    height, width = x.shape[2:]
    m = 4 if len(x) * math.ceil(height / 4) * math.ceil(width / 4) >= _LEAST_TILES else 2
    made = x.new_empty(len(x), math.ceil(height / m), m, math.ceil(width / m), m, len(weight))
    _convolve(rearrange(x, "n c h w -> n h w c"), weight, bias, made)
    return made.flatten(3, 4).flatten(1, 2)[:, :height, :width].contiguous().permute(0, 3, 1, 2)


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, I, T, N), taps (O, I, 3, 1), padding 1 over T, to (B, O, T, N), channels last; float32."""
    clips, _, frames, places = x.shape
    made = x.new_empty(clips, math.ceil(frames / 4), 4, places, len(weight))
    for clip, target in zip(x, made, strict=True):
        target = target.permute(2, 0, 1, 3)[:, :, :, None, None]
        _convolve(rearrange(clip, "c t n -> n t 1 c"), weight, bias, target)
    return made.flatten(1, 2)[:, :frames].contiguous().permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, made: Tensor) -> None:
    """Fills `made` (N, rows, m, columns, m, O) from (N, H, W, I); m = 1 along an axis with one tap.

    Some images and output channels at a time, so that buffers stay small and are used again.
    """
    _, rows, tile_height, columns, tile_width, out_channels = made.shape
    transforms, channels = _transforms(tile_height, tile_width), x.shape[-1]
    points = len(transforms.inputs)
    images_at_once = min(len(x), max(1, _INPUTS // (points * rows * columns * channels)))
    channels_at_once = min(out_channels, max(1, _TAPS // (points * channels)))
    values = images_at_once * rows * columns * channels_at_once
    sizes = (points * channels_at_once * channels, points * values, tile_height * tile_width * values)
    buffers = [x.new_empty(size) for size in sizes]
    for images, targets in zip(x.split(images_at_once), made.split(images_at_once), strict=True):
        tiles = _tiles(images, made.shape)
        inputs = (transforms.inputs @ tiles.flatten(1)).view(tiles.shape)
        parts = (weight.split(channels_at_once), bias.split(channels_at_once), targets.split(channels_at_once, -1))
        for taps, biases, target in zip(*parts, strict=True):
            outputs = _outputs(inputs, taps, transforms, buffers)
            outputs = outputs.view(tile_height, tile_width, len(images), rows, columns, -1)
            torch.add(rearrange(outputs, "a b n h w c -> n h a w b c"), biases, out=target)


def _tiles(x: Tensor, made: torch.Size) -> Tensor:
    """(N, H, W, I), padded, as overlapping tiles: (inputs of a tile, N x rows x columns, I)."""
    _, rows, tile_height, columns, tile_width, _ = made
    pads = [0, 0]
    for length, count, m in ((x.shape[2], columns, tile_width), (x.shape[1], rows, tile_height)):
        edge = int(m > 1)
        pads += [edge, edge + count * m - length]
    tiles = F.pad(x, pads)
    for axis, m in ((1, tile_height), (2, tile_width)):
        tiles = tiles.unfold(axis, m + 2 if m > 1 else 1, m)
    return rearrange(tiles, "n h w c a b -> (a b) (n h w) c")


def _outputs(inputs: Tensor, weight: Tensor, transforms: _Transforms, buffers: list[Tensor]) -> Tensor:
    """Transformed inputs (points, tiles, I) and taps (O, I, 3, 3 or 1) to (outputs of a tile, tiles x O).

    They lie in the last of `buffers`, which the next call writes over.
    """
    (points, tiles, channels), out_channels = inputs.shape, len(weight)
    for_taps, for_products, for_outputs = buffers
    taps = weight.reshape(out_channels * channels, -1).t()
    taps = torch.mm(transforms.taps, taps, out=_view_of(for_taps, points, out_channels * channels))
    taps = rearrange(taps, "p (o i) -> p i o", o=out_channels)
    products = torch.bmm(inputs, taps, out=_view_of(for_products, points, tiles, out_channels)).flatten(1)
    out = _view_of(for_outputs, len(transforms.outputs), tiles * out_channels)
    return torch.mm(transforms.outputs, products, out=out)


def _view_of(buffer: Tensor, *shape: int) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)


@cache
def _transforms(tile_height: int, tile_width: int) -> _Transforms:
    each = zip(_along_axis(tile_height), _along_axis(tile_width), strict=True)
    return _Transforms(*(torch.kron(*matrices).float() for matrices in each))


def _along_axis(m: int) -> _Transforms:
    """Toom and Cook's matrices, transposed: what multiplies polynomials of m and 3 coefficients then convolves."""
    if m == 1:
        one = torch.ones(1, 1, dtype=torch.float64)
        return _Transforms(one, one, one)
    points = _POINTS[m]
    others = [[q for q in points if q != p] for p in points]
    norms = [math.prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    polynomials = [np.poly(roots)[::-1] for roots in (*others, points)]  # the constant first
    inputs = [[*row, *[0.0] * (m + 2 - len(row))] for row in polynomials]
    taps = [[p**k / norm for k in range(3)] for p, norm in zip(points, norms, strict=True)] + [[0.0, 0.0, 1.0]]
    outputs = [[p**j for p in points] + [float(j == m - 1)] for j in range(m)]
    return _Transforms(*(torch.tensor(rows, dtype=torch.float64) for rows in (inputs, taps, outputs)))
