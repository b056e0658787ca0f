"""Norms, GEGLU and attention over few frames as Triton kernels, which go through memory as seldom as can be. Sums are float32.

A picture is (N, C, H, W) and channels last in memory: N x `length` places of `channels` values side by side, of which
`of_group` neighbours make a group. A program holds ROWS x COLUMNS values: places, and a group's channels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 1024  # values that a program holds at a time
_PROGRAMS = 1024  # how many of them fill a large GPU
_LONGEST = 65535  # of a grid's second axis
_GEGLU_ROWS, _GEGLU_COLUMNS = 8, 256
_TOKENS = 64  # that a program of attention holds at least


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    """`torch.nn.functional.group_norm` of (N, C, H, W), channels last as its result is, and SiLU of it where `silu`."""
    n, channels, height, width = x.shape
    length, of_group = height * width, channels // groups
    columns = triton.next_power_of_2(of_group)
    rows = max(_TILE // columns, triton.next_power_of_2(triton.cdiv(length, _LONGEST)))
    blocks = triton.cdiv(length, rows)
    parts = min(max(_PROGRAMS // (n * groups), 1), blocks)
    sums = torch.empty(n, groups, parts, 2, device=x.device, dtype=torch.float32)
    made = torch.empty_like(x, memory_format=torch.channels_last)
    sizes = {"length": length, "channels": channels, "of_group": of_group, "ROWS": rows, "COLUMNS": columns}
    with torch.cuda.device_of(x):
        _sums[groups, parts, n](x, sums, **sizes)
        _normalise[groups, blocks, n](
            x, sums, weight, bias, made, eps, parts, **sizes, PARTS=triton.next_power_of_2(parts), SILU=silu
        )
    return made


@triton.jit
def _sums(x, sums, length, channels, of_group, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The sum and the sum of squares of a group in one of the parts of its places, of differences to its first value."""
    group, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    x += tl.program_id(2).to(tl.int64) * length * channels + group * of_group
    first = tl.load(x).to(tl.float32)
    columns = tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    start = part * ROWS
    while start < length:
        rows = (start + tl.arange(0, ROWS)[:, None]).to(tl.int64)
        inside = (rows < length) & (columns < of_group)
        values = tl.load(x + rows * channels + columns, mask=inside, other=0.0).to(tl.float32)
        values = tl.where(inside, values - first, 0.0)
        total += values
        squares += values * values
        start += parts * ROWS
    sums += ((tl.program_id(2) * tl.num_programs(0) + group) * parts + part) * 2
    tl.store(sums, tl.sum(total))
    tl.store(sums + 1, tl.sum(squares))


@triton.jit
def _normalise(
    x, sums, weight, bias, made, eps, parts, length, channels, of_group,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """One group in some of the places, by the sums of all its parts."""
    group = tl.program_id(0)
    sums += (tl.program_id(2) * tl.num_programs(0) + group) * parts * 2
    part = tl.arange(0, PARTS)
    count = length * of_group
    mean = tl.sum(tl.load(sums + part * 2, mask=part < parts, other=0.0)) / count
    variance = tl.sum(tl.load(sums + part * 2 + 1, mask=part < parts, other=0.0)) / count - mean * mean
    start = tl.program_id(2).to(tl.int64) * length * channels + group * of_group
    mean += tl.load(x + start).to(tl.float32)  # the sums are of differences to this value

    rows = tl.program_id(1).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, COLUMNS)[None, :]
    scale = tl.load(weight + group * of_group + columns, mask=columns < of_group, other=0.0).to(tl.float32)
    scale *= tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    shift = tl.load(bias + group * of_group + columns, mask=columns < of_group, other=0.0).to(tl.float32)
    inside = (rows < length) & (columns < of_group)
    offsets = start + rows * channels + columns
    values = (tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) - mean) * scale + shift
    if SILU:
        values *= tl.sigmoid(values)
    tl.store(made + offsets, values.to(made.dtype.element_ty), mask=inside)


def geglu(projected: Tensor) -> Tensor:
    """(..., 2 D), the values and then the gates, to values x GELU(gates), (..., D)."""
    projected = projected.contiguous()
    width = projected.shape[-1] // 2
    made = projected.new_empty(*projected.shape[:-1], width)
    length = made.numel() // width
    grid = triton.cdiv(length, _GEGLU_ROWS), triton.cdiv(width, _GEGLU_COLUMNS)
    with torch.cuda.device_of(projected):
        _geglu[grid](projected, made, length, width, ROWS=_GEGLU_ROWS, COLUMNS=_GEGLU_COLUMNS)
    return made


@triton.jit
def _geglu(projected, made, length, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Some of `width` products of some of `length` tokens."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < length) & (columns < width)
    projected += rows * 2 * width + columns
    values = tl.load(projected, mask=inside, other=0.0).to(tl.float32)
    gates = tl.load(projected + width, mask=inside, other=0.0).to(tl.float32)
    values *= 0.5 * gates * (1 + tl.erf(gates * 0.7071067811865476))  # the square root of 1 / 2
    tl.store(made + rows * width + columns, values.to(made.dtype.element_ty), mask=inside)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.layer_norm` over the last axis."""
    x = x.contiguous()
    made = torch.empty_like(x)
    _launch_layer_norm(x, x, x, weight, bias, made, eps, ADD=False)
    return made


def add_layer_norm(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The sum of `x` and `added`, and its `layer_norm`."""
    x, added = x.contiguous(), added.contiguous()
    total, made = torch.empty_like(x), torch.empty_like(x)
    _launch_layer_norm(x, added, total, weight, bias, made, eps, ADD=True)
    return total, made


def _launch_layer_norm(
    x: Tensor, added: Tensor, total: Tensor, weight: Tensor, bias: Tensor, made: Tensor, eps: float, ADD: bool
) -> None:
    width = x.shape[-1]
    length, columns = x.numel() // width, triton.next_power_of_2(width)
    rows = max(_TILE // columns, 1)
    with torch.cuda.device_of(x):
        _layer_norm[triton.cdiv(length, rows),](
            x, added, total, weight, bias, made, eps, length, width, ROWS=rows, COLUMNS=columns, ADD=ADD
        )


@triton.jit
def _layer_norm(
    x, added, total, weight, bias, made, eps, length, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr
):
    """Some of `length` tokens of `width` channels."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.arange(0, COLUMNS)[None, :]
    inside = (rows < length) & (columns < width)
    offsets = rows * width + columns
    values = tl.load(x + offsets, mask=inside, other=0.0)
    if ADD:
        values += tl.load(added + offsets, mask=inside, other=0.0)
        tl.store(total + offsets, values, mask=inside)
    values = values.to(tl.float32)
    values = tl.where(inside, values - tl.sum(values, 1)[:, None] / width, 0.0)
    scale = tl.rsqrt(tl.sum(values * values, 1) / width + eps)[:, None]
    scale *= tl.load(weight + columns, mask=columns < width, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=columns < width, other=0.0).to(tl.float32)
    tl.store(made + offsets, (values * scale + shift).to(made.dtype.element_ty), mask=inside)


def attention_over_time(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of (B, T, N, heads x D) over T, for every one of N places by itself; meant for few frames."""
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    made, (batch, frames, places, channels) = torch.empty_like(query), query.shape
    of_head, rows = channels // heads, max(_TOKENS, triton.next_power_of_2(frames))
    columns = max(triton.next_power_of_2(of_head), 16)  # products of matrices have no fewer
    sizes = {"frames": frames, "places": places, "channels": channels, "of_head": of_head, "ROWS": rows, "COLUMNS": columns}
    with torch.cuda.device_of(query):
        _attention_over_time[triton.cdiv(places, rows // frames), heads, batch](query, key, value, made, of_head**-0.5, **sizes)
    return made


@triton.jit
def _attention_over_time(
    query, key, value, made, scale, frames, places, channels, of_head, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One head at as many places as have their frames in ROWS tokens, which attend to those of their own place."""
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    each = ROWS // frames
    place = tl.program_id(0) * each + rows // frames
    token = (tl.program_id(2).to(tl.int64) * frames + rows % frames) * places + place
    offsets = token[:, None] * channels + tl.program_id(1) * of_head + columns[None, :]
    there = (rows < each * frames) & (place < places)
    inside = there[:, None] & (columns < of_head)[None, :]
    queries = tl.load(query + offsets, mask=inside, other=0.0)
    keys = tl.load(key + offsets, mask=inside, other=0.0)
    values = tl.load(value + offsets, mask=inside, other=0.0)
    scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale
    scores = tl.where((place[:, None] == place[None, :]) & there[None, :], scores, -1e30)
    shares = tl.exp(scores - tl.max(scores, 1)[:, None])
    shares /= tl.sum(shares, 1)[:, None]
    mixed = tl.dot(shares.to(values.dtype), values, input_precision="ieee")
    tl.store(made + offsets, mixed.to(made.dtype.element_ty), mask=inside)
