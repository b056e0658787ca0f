"""Curves over frames or steps, and one measure over another, as pictures drawn with Pillow alone."""

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

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_FINE = 2  # drawn so much larger and then reduced: Pillow's lines have steps
_TEXT, _LEFT, _RIGHT, _TOP, _BOTTOM, _DOT = 15, 64, 20, 40, 52, 4  # pixels of the finished picture
_TICKS = 8
_NARROWEST = 0.01  # so that rounding errors do not fill the height
_ROOM = 0.1  # of a span, for names
# On which side of its place a trail's names stand, and Pillow's anchor for it: names of trails that meet stay apart.
_SIDES = ((0, -1, "mb"), (0, 1, "mt"), (1, 0, "lm"), (-1, 0, "rm"))


@dataclass(frozen=True)
class Curve:
    """A value for each frame or step, and what it is called in the legend."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Trail:
    """Places (across, up) by what is written beside them, joined in their order; what they are called in the legend."""

    label: str
    places: Mapping[str, tuple[float, float]]


def frame_plot(curves: Sequence[Curve], width: int = 640, height: int = 400, across: str = "frame", every: int = 1) -> Tensor:
    """One to four curves over the frame's number, counted from 0, as a picture (1, 3, height, width) in [-1, 1].

    `across` names what is counted in place of frames, and `every` is how many lie between two values. The vertical axis spans
    the values. All curves have as many values, at least one; another number of curves, other lengths and values that are no
    numbers raise `InputError`.
    """
    _check([(curve.label, curve.values) for curve in curves])
    lengths = [len(curve.values) for curve in curves]
    if len(set(lengths)) > 1:
        raise InputError(f"the curves have {lengths} values; allowed: equally many")
    axes = _Axes(width, height, _counted(lengths[0], every), _spanned(v for curve in curves for v in curve.values), across)
    for curve, colour in zip(curves, COLOURS, strict=False):
        axes.draw_line(list(enumerate(curve.values)), colour)
    axes.draw_legend([curve.label for curve in curves])
    return axes.pixels()


def trail_plot(trails: Sequence[Trail], width: int = 640, height: int = 400, across: str = "") -> Tensor:
    """One to four trails as a picture (1, 3, height, width) in [-1, 1]; both axes span the places, `across` names the lower.

    Another number of trails, one without a place and values that are no numbers raise `InputError`.
    """
    _check([(trail.label, [v for place in trail.places.values() for v in place]) for trail in trails])
    places = [place for trail in trails for place in trail.places.values()]
    axes = _Axes(width, height, *(_spanned(_with_room(values)) for values in zip(*places, strict=True)), across)
    for trail, colour, side in zip(trails, COLOURS, _SIDES, strict=False):
        axes.draw_line(list(trail.places.values()), colour)
        for name, place in trail.places.items():
            axes.draw_name(name, place, colour, side)
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
    """The least of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that divides `span`, above 0, into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * digit for digit in (1, 2, 5, 10) if span / (power * digit) <= most)


@dataclass(frozen=True)
class _Scale:
    """The two ends of an axis, and the values on it that are marked, with what is written there."""

    low: float
    high: float
    marks: Mapping[float, str]

    def share(self, value: float) -> float:
        """How far a value lies from the low end to the high one; on a scale without length in the middle."""
        return (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def _counted(number: int, every: int) -> _Scale:
    step = max(1, round(nice_step(number)))
    return _Scale(0, number - 1, {place: str(place * every) for place in range(0, number, step)})


def _spanned(values: Iterable[float]) -> _Scale:
    """Between round numbers around the values."""
    values = list(values)
    low, high = min(values), max(values)
    low = min(low, high - _NARROWEST)
    step = nice_step(high - low)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    decimals = max(0, -math.floor(math.log10(step)))
    ticks = [low + number * step for number in range(round((high - low) / step) + 1)]
    return _Scale(low, high, {tick: f"{tick:.{decimals}f}" for tick in ticks})


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the values and of what is written beside the outermost ones."""
    low, high = min(values), max(values)
    room = max(high - low, _NARROWEST) * _ROOM
    return low - room, high + room


class _Axes:
    """A picture with two axes, and where values lie in it. Lengths are in pixels of the large drawing."""

    def __init__(self, width: int, height: int, across: _Scale, up: _Scale, title: str):
        self.picture = Image.new("RGB", (width * _FINE, height * _FINE), "white")
        self.draw = ImageDraw.Draw(self.picture)
        self.left, self.top = _LEFT * _FINE, _TOP * _FINE
        self.right, self.bottom = self.picture.width - _RIGHT * _FINE, self.picture.height - _BOTTOM * _FINE
        self.across, self.up = across, up
        self._draw_grid(title)

    def pixels(self) -> Tensor:
        pixels = torch.from_numpy(np.array(self.picture.reduce(_FINE)))
        return from_uint8(pixels.permute(2, 0, 1)[None])

    def _at(self, across: float, up: float) -> tuple[float, float]:
        x = self.left + self.across.share(across) * (self.right - self.left)
        return x, self.bottom - self.up.share(up) * (self.bottom - self.top)

    def _draw_grid(self, title: str) -> None:
        for value, text in self.up.marks.items():
            _, y = self._at(self.across.low, value)
            self.draw.line((self.left, y, self.right, y), "#dddddd", _FINE)
            self.draw.text((self.left - 8 * _FINE, y), text, "black", _font(text), "rm")
        for value, text in self.across.marks.items():
            x, _ = self._at(value, self.up.low)
            self.draw.line((x, self.bottom, x, self.bottom + 5 * _FINE), "black", _FINE)
            self.draw.text((x, self.bottom + 8 * _FINE), text, "black", _font(text), "mt")
        self.draw.line((self.left, self.top, self.left, self.bottom, self.right, self.bottom), "black", _FINE)
        self.draw.text(((self.left + self.right) / 2, self.bottom + 28 * _FINE), title, "black", _font(title), "mt")

    def draw_line(self, places: Sequence[tuple[float, float]], colour: str) -> None:
        points = [self._at(*place) for place in places]
        self.draw.line(points, colour, 2 * _FINE, "curve")
        spacing = (self.right - self.left) / len(points)
        radius = min(_DOT * _FINE, spacing / 4)  # dots that would touch become a line
        for x, y in points:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def draw_name(self, name: str, place: tuple[float, float], colour: str, side: tuple[int, int, str]) -> None:
        right, down, anchor = side
        x, y = self._at(*place)
        away = 2 * _DOT * _FINE
        self.draw.text((x + right * away, y + down * away), name, colour, _font(name), anchor)

    def draw_legend(self, labels: Sequence[str]) -> None:
        """In one line above the axes, or in two where that is too long, and smaller where those are."""
        entries, room = list(zip(labels, COLOURS, strict=False)), self.picture.width - self.left
        half = math.ceil(len(entries) / 2) if self._length(entries) > room else len(entries)
        rows = [row for row in (entries[:half], entries[half:]) if row]
        shrunk = min(1.0, room / max(map(self._length, rows)))
        for number, row in enumerate(rows, 1):
            y = self.top * number / (len(rows) + 1)
            for place, (label, colour) in enumerate(row):
                x = self.left + shrunk * self._length(row[:place])
                self.draw.line((x, y, x + 24 * _FINE * shrunk, y), colour, 4 * _FINE)
                self.draw.text((x + 30 * _FINE * shrunk, y), label, "black", _font(label, shrunk), "lm")

    def _length(self, entries: Sequence[tuple[str, str]]) -> float:
        """Of entries in the legend beside each other."""
        return sum(54 * _FINE + _font(label).getlength(label) for label, _ in entries)


def _font(text: str, shrunk: float = 1.0) -> ImageFont.FreeTypeFont:
    return choose_font(text, _TEXT * _FINE * shrunk).font
