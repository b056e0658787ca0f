"""Plots drawn with Pillow alone: curves over frames or steps, and trails of one measure over another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..common.checks import InputError
from .fonts import choose_font
from .images import from_uint8

# Okabe and Ito's palette, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_OVERSAMPLING = 2  # drawn so much larger and then reduced, because Pillow does not smooth lines
_TEXT, _LEFT, _RIGHT, _TOP, _BOTTOM, _DOT = 15, 64, 20, 40, 52, 4  # pixels of the finished picture
_TICKS = 8
_NARROWEST = 0.01  # the least span of an axis: rounding errors must not fill the height
_MARGIN = 0.1  # of a trail's span, on either side: room for the points' names
# For each trail, where a point's name goes, (right, down), and Pillow's text anchor: names of trails that meet stay apart.
_SIDES = ((0, -1, "mb"), (0, 1, "mt"), (1, 0, "lm"), (-1, 0, "rm"))


@dataclass(frozen=True)
class Curve:
    """A value for each frame or step, and the legend's label."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Trail:
    """Points (x, y) by their names, joined by a line in this order, and the legend's label."""

    label: str
    points: Mapping[str, tuple[float, float]]


def frame_plot(curves: Sequence[Curve], width: int = 640, height: int = 400, across: str = "frame", every: int = 1) -> Tensor:
    """One to four curves over the frame's number, counted from 0, as a picture (1, 3, height, width) in [-1, 1].

    `across` is the horizontal axis' title. `every` is the step between two values on it. Raises `InputError` for another
    number of curves, for curves of different lengths or without values, and for values that are not finite.
    """
    _check([(curve.label, curve.values) for curve in curves])
    lengths = [len(curve.values) for curve in curves]
    if len(set(lengths)) > 1:
        raise InputError(f"the curves have {lengths} values; allowed: equally many")
    vertical = _value_scale(v for curve in curves for v in curve.values)
    axes = _Axes(width, height, _count_scale(lengths[0], every), vertical, across)
    for curve, colour in zip(curves, COLOURS, strict=False):
        axes.draw_line(list(enumerate(curve.values)), colour)
    axes.draw_legend([curve.label for curve in curves])
    return axes.pixels()


def trail_plot(trails: Sequence[Trail], width: int = 640, height: int = 400, across: str = "") -> Tensor:
    """One to four trails as a picture (1, 3, height, width) in [-1, 1]; `across` is the horizontal axis' title.

    Raises `InputError` for another number of trails, for one without points, and for values that are not finite.
    """
    _check([(trail.label, [value for point in trail.points.values() for value in point]) for trail in trails])
    points = [point for trail in trails for point in trail.points.values()]
    axes = _Axes(width, height, *(_value_scale(_with_margin(values)) for values in zip(*points, strict=True)), across)
    for trail, colour, side in zip(trails, COLOURS, _SIDES, strict=False):
        axes.draw_line(list(trail.points.values()), colour)
        for name, point in trail.points.items():
            axes.draw_name(name, point, colour, side)
    axes.draw_legend([trail.label for trail in trails])
    return axes.pixels()


def _check(curves: Sequence[tuple[str, Sequence[float]]]) -> None:
    if not 1 <= len(curves) <= len(COLOURS):
        raise InputError(f"there are {len(curves)} curves; allowed: 1 to {len(COLOURS)}")
    for label, values in curves:
        if not values:
            raise InputError(f"{label} has no values; allowed: at least one")
        if not all(map(math.isfinite, values)):
            raise InputError(f"{label} has values that are no numbers (NaN or infinite) and cannot be drawn")


def nice_step(span: float, most: int = _TICKS) -> float:
    """The smallest of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that divides `span` (more than 0) into at most `most` intervals."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * digit for digit in (1, 2, 5, 10) if span / (power * digit) <= most)


@dataclass(frozen=True)
class _Scale:
    """The two ends of an axis, and the labels of its ticks by their values."""

    low: float
    high: float
    ticks: Mapping[float, str]

    def fraction(self, value: float) -> float:
        """The position of a value: 0 at the low end, 1 at the high one; 0.5 on an axis without length."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _count_scale(count: int, every: int) -> _Scale:
    step = max(1, round(nice_step(count)))
    return _Scale(0, count - 1, {index: str(index * every) for index in range(0, count, step)})


def _value_scale(values: Iterable[float]) -> _Scale:
    """From and to round numbers around the values."""
    values = list(values)
    low, high = min(values), max(values)
    low = min(low, high - _NARROWEST)
    step = nice_step(high - low)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    decimals = max(0, -math.floor(math.log10(step)))
    ticks = [low + number * step for number in range(round((high - low) / step) + 1)]
    return _Scale(low, high, {tick: f"{tick:.{decimals}f}" for tick in ticks})


def _with_margin(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the values with room for the names of the outermost points."""
    low, high = min(values), max(values)
    margin = max(high - low, _NARROWEST) * _MARGIN
    return low - margin, high + margin


class _Axes:
    """A picture with two axes to draw on. Lengths are in pixels of the oversampled drawing."""

    def __init__(self, width: int, height: int, across: _Scale, up: _Scale, title: str):
        self.picture = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING), "white")
        self.draw = ImageDraw.Draw(self.picture)
        self.left, self.top = _LEFT * _OVERSAMPLING, _TOP * _OVERSAMPLING
        self.right, self.bottom = self.picture.width - _RIGHT * _OVERSAMPLING, self.picture.height - _BOTTOM * _OVERSAMPLING
        self.across, self.up = across, up
        self._draw_grid(title)

    def pixels(self) -> Tensor:
        pixels = torch.from_numpy(np.array(self.picture.reduce(_OVERSAMPLING)))
        return from_uint8(pixels.permute(2, 0, 1)[None])

    def _pixel(self, across: float, up: float) -> tuple[float, float]:
        x = self.left + self.across.fraction(across) * (self.right - self.left)
        return x, self.bottom - self.up.fraction(up) * (self.bottom - self.top)

    def _draw_grid(self, title: str) -> None:
        s = _OVERSAMPLING
        for value, text in self.up.ticks.items():
            _, y = self._pixel(self.across.low, value)
            self.draw.line((self.left, y, self.right, y), "#dddddd", s)
            self.draw.text((self.left - 8 * s, y), text, "black", _font(text), "rm")
        for value, text in self.across.ticks.items():
            x, _ = self._pixel(value, self.up.low)
            self.draw.line((x, self.bottom, x, self.bottom + 5 * s), "black", s)
            self.draw.text((x, self.bottom + 8 * s), text, "black", _font(text), "mt")
        self.draw.line((self.left, self.top, self.left, self.bottom, self.right, self.bottom), "black", s)
        self.draw.text(((self.left + self.right) / 2, self.bottom + 28 * s), title, "black", _font(title), "mt")

    def draw_line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        pixels = [self._pixel(*point) for point in points]
        self.draw.line(pixels, colour, 2 * _OVERSAMPLING, "curve")
        spacing = (self.right - self.left) / len(pixels)
        radius = min(_DOT * _OVERSAMPLING, spacing / 4)  # dots that would touch shrink into the line
        for x, y in pixels:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def draw_name(self, name: str, point: tuple[float, float], colour: str, side: tuple[int, int, str]) -> None:
        right, down, anchor = side
        x, y = self._pixel(*point)
        distance = 2 * _DOT * _OVERSAMPLING
        self.draw.text((x + right * distance, y + down * distance), name, colour, _font(name), anchor)

    def draw_legend(self, labels: Sequence[str]) -> None:
        """On one line above the axes, on two if one is too short, and smaller if two are too short as well."""
        entries, room = list(zip(labels, COLOURS, strict=False)), self.picture.width - self.left
        half = math.ceil(len(entries) / 2) if self._length(entries) > room else len(entries)
        rows = [row for row in (entries[:half], entries[half:]) if row]
        scale = min(1.0, room / max(map(self._length, rows)))
        for number, row in enumerate(rows, 1):
            y = self.top * number / (len(rows) + 1)
            for index, (label, colour) in enumerate(row):
                x = self.left + scale * self._length(row[:index])
                self.draw.line((x, y, x + 24 * _OVERSAMPLING * scale, y), colour, 4 * _OVERSAMPLING)
                self.draw.text((x + 30 * _OVERSAMPLING * scale, y), label, "black", _font(label, scale), "lm")

    def _length(self, entries: Sequence[tuple[str, str]]) -> float:
        """The length of legend entries side by side, at full size."""
        return sum(54 * _OVERSAMPLING + _font(label).getlength(label) for label, _ in entries)


def _font(text: str, scale: float = 1.0) -> ImageFont.FreeTypeFont:
    return choose_font(text, _TEXT * _OVERSAMPLING * scale).font
