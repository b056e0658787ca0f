"""Convolutions of three taps an axis by Winograd's algorithm (Lavin and Gray, arXiv 1509.09308).

m neighbouring outputs come of m + 2 inputs. Taken as polynomials, a convolution is a product, and a product is known by its
values at m + 2 points: one multiplication for each in place of 3 m, and for m x m outputs the square of both. To the values and
back are products with small matrices; between them, at every point, is one of inputs and taps over the channels.
"""

from __future__ import annotations

import math
from functools import cache, reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# By m, beside infinity. Of the sets that were tried for 4 this one rounds least: half the error of 0, 1, -1, 2 and -2.
_POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 3 / 2, -3 / 2, 2 / 3, -2 / 3)}
_TILES = 64  # from which m = 4 pays, whose values of taps are more than those of m = 2
_INPUTS, _TAPS = 6 * 2**20, 4 * 2**20  # values held at a time: below 32 MiB malloc hands out the same memory again


class _Transforms(NamedTuple):
    """Matrices to values at the points, and from them to outputs."""

    inputs: Tensor  # (points, m + 2)
    taps: Tensor  # (points, 3)
    outputs: Tensor  # (m, points)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, I, H, W), taps (O, I, 3, 3), zeros around, to (N, O, H, W) that lies channels last; float32."""
    height, width = x.shape[2:]
    m = 4 if len(x) * height * width >= 16 * _TILES else 2
    made = x.new_empty(len(x), -(-height // m), m, -(-width // m), m, len(weight))
    _convolve(rearrange(x, "n c h w -> n h w c"), weight, bias, made)
    return made.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)


def conv_over_time(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, I, T, N), taps (O, I, 3, 1), zeros before and after each clip, to (B, O, T, N) that lies channels last; float32."""
    clips, _, frames, places = x.shape
    m = 4
    made = x.new_empty(clips, -(-frames // m), m, places, len(weight))
    for clip, target in zip(x, made, strict=True):
        target = rearrange(target, "h a n c -> n h a 1 1 c")
        _convolve(rearrange(clip, "c t n -> n t 1 c"), weight, bias, target)
    return made.flatten(1, 2)[:, :frames].permute(0, 3, 1, 2)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, made: Tensor) -> None:
    """(N, H, W, I) to `made`, (N, rows, m, columns, m, O); an axis with a single tap has m = 1.

    A few pictures and output channels at a time, in memory that they use one after the other.
    """
    _, rows, high, columns, wide, out_channels = made.shape
    transforms, channels = _transforms(high, wide), x.shape[-1]
    points = len(transforms.inputs)
    few_pictures = min(len(x), max(1, _INPUTS // (points * rows * columns * channels)))
    few_channels = min(out_channels, max(1, _TAPS // (points * channels)))
    tiles = few_pictures * rows * columns
    sizes = (points * few_channels * channels, points * tiles * few_channels, high * wide * tiles * few_channels)
    memory = [x.new_empty(size) for size in sizes]
    for pictures, targets in zip(x.split(few_pictures), made.split(few_pictures), strict=True):
        tiles = _tiles(pictures, made.shape)
        values = (transforms.inputs @ tiles.flatten(1)).view(tiles.shape)
        for taps, biases, target in zip(
            weight.split(few_channels), bias.split(few_channels), targets.split(few_channels, -1), strict=True
        ):
            outputs = _multiply(values, taps, transforms, memory)
            outputs = outputs.view(high, wide, len(pictures), rows, columns, -1)
            torch.add(rearrange(outputs, "a b n h w c -> n h a w b c"), biases, out=target)


def _multiply(values: Tensor, weight: Tensor, transforms: _Transforms, memory: list[Tensor]) -> Tensor:
    """Values of inputs (points, tiles, I) and taps (O, I, 3, 3 or 1) to outputs (m x m, tiles x O)."""
    (points, tiles, channels), out_channels = values.shape, len(weight)
    for_taps, for_products, for_outputs = memory
    taps = weight.reshape(out_channels * channels, -1).t()
    taps = torch.mm(transforms.taps, taps, out=_part(for_taps, points, out_channels * channels))
    taps = rearrange(taps, "p (o i) -> p i o", o=out_channels)
    products = torch.bmm(values, taps, out=_part(for_products, points, tiles, out_channels)).flatten(1)
    return torch.mm(transforms.outputs, products, out=_part(for_outputs, len(transforms.outputs), tiles * out_channels))


def _part(memory: Tensor, *shape: int) -> Tensor:
    return memory[: math.prod(shape)].view(shape)


def _tiles(x: Tensor, made: torch.Size) -> Tensor:
    """Overlapping tiles of (N, H, W, I): (points, N x rows x columns, I)."""
    _, rows, high, columns, wide, _ = made
    pads = [0, 0]
    for length, count, m in ((x.shape[2], columns, wide), (x.shape[1], rows, high)):
        edge = int(m > 1)
        pads += [edge, edge + count * m - length]
    tiles = F.pad(x, pads)
    for axis, m in ((1, high), (2, wide)):
        tiles = tiles.unfold(axis, m + 2 if m > 1 else 1, m)
    return rearrange(tiles, "n h w c a b -> (a b) (n h w) c")


@cache
def _transforms(high: int, wide: int) -> _Transforms:
    """For tiles of so many outputs, both axes in one."""
    each = zip(_along_axis(high), _along_axis(wide), strict=True)
    return _Transforms(*(torch.kron(*matrices).float() for matrices in each))


def _along_axis(m: int) -> _Transforms:
    """Toom and Cook's matrices, transposed: what multiplies polynomials of m and 3 coefficients then convolves."""
    if m == 1:
        one = torch.ones(1, 1, dtype=torch.float64)
        return _Transforms(one, one, one)
    points = _POINTS[m]
    others = [[q for q in points if q != p] for p in points]
    norms = [math.prod(p - q for q in rest) for p, rest in zip(points, others, strict=True)]
    polynomials = [_polynomial(roots) for roots in (*others, points)]
    inputs = [row + [0.0] * (m + 2 - len(row)) for row in polynomials]
    taps = [[p**k / norm for k in range(3)] for p, norm in zip(points, norms, strict=True)] + [[0.0, 0.0, 1.0]]
    outputs = [[p**j for p in points] + [float(j == m - 1)] for j in range(m)]
    return _Transforms(*(torch.tensor(rows, dtype=torch.float64) for rows in (inputs, taps, outputs)))


def _polynomial(roots: tuple[float, ...] | list[float]) -> list[float]:
    """Coefficients of the product of all x - root, the constant first."""

    def times(polynomial: list[float], root: float) -> list[float]:
        return [low - root * high for low, high in zip([0.0, *polynomial], [*polynomial, 0.0], strict=True)]

    return reduce(times, roots, [1.0])
