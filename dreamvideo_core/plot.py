"""Curves over frames or steps as a picture, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .checks import InputError

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_FINE = 2  # drawn so much larger and then reduced: Pillow's lines have steps
_TEXT, _LEFT, _RIGHT, _TOP, _BOTTOM = 15, 64, 20, 40, 52  # pixels of the finished picture
_TICKS = 8
_NARROWEST = 0.01  # so that rounding errors do not fill the height


@dataclass(frozen=True)
class Curve:
    """A value for each frame or step, and what it is called in the legend."""

    label: str
    values: Sequence[float]


def frame_plot(curves: Sequence[Curve], width: int = 640, height: int = 400, across: str = "frame", every: int = 1) -> Tensor:
    """One to four curves over the frame's number, counted from 0, as a picture (1, 3, height, width) in [-1, 1].

    `across` names what is counted in place of frames, and `every` is how many lie between two values. The vertical axis spans
    the values. All curves have as many values, at least one; another number of curves, other lengths and values that are no
    numbers raise `InputError`.
    """
    _check(curves)
    picture = Image.new("RGB", (width * _FINE, height * _FINE), "white")
    axes = _Axes(picture, curves, across, every)
    axes.draw_grid()
    for curve, colour in zip(curves, COLOURS, strict=False):
        axes.draw_curve(curve, colour)
    axes.draw_legend(curves)
    pixels = torch.from_numpy(np.array(picture.reduce(_FINE)))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def _check(curves: Sequence[Curve]) -> None:
    if not 1 <= len(curves) <= len(COLOURS):
        raise InputError(f"there are {len(curves)} curves; allowed: 1 to {len(COLOURS)}")
    lengths = [len(curve.values) for curve in curves]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise InputError(f"the curves have {lengths} values; allowed: equally many, at least one")
    for curve in curves:
        if not all(map(math.isfinite, curve.values)):
            raise InputError(f"{curve.label} has values that are no numbers (NaN or infinite) and cannot be drawn")


def nice_step(span: float, most: int = _TICKS) -> float:
    """The least of ..., 0.1, 0.2, 0.5, 1, 2, 5, ... that divides `span`, above 0, into at most `most` parts."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * digit for digit in (1, 2, 5, 10) if span / (power * digit) <= most)


class _Axes:
    """Where values lie in the picture. Lengths are in pixels of the large drawing."""

    def __init__(self, picture: Image.Image, curves: Sequence[Curve], across: str, every: int):
        self.across, self.every = across, every
        self.draw = ImageDraw.Draw(picture)
        self.font = ImageFont.load_default(_TEXT * _FINE)
        self.left, self.top = _LEFT * _FINE, _TOP * _FINE
        self.right, self.bottom = picture.width - _RIGHT * _FINE, picture.height - _BOTTOM * _FINE
        self.frames = len(curves[0].values)
        values = [value for curve in curves for value in curve.values]
        low, high = min(values), max(values)
        low = min(low, high - _NARROWEST)
        self.step = nice_step(high - low)
        self.low, self.high = math.floor(low / self.step) * self.step, math.ceil(high / self.step) * self.step

    def place(self, frame: int, value: float) -> tuple[float, float]:
        across = frame / (self.frames - 1) if self.frames > 1 else 0.5
        up = (value - self.low) / (self.high - self.low)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def draw_grid(self) -> None:
        decimals = max(0, -math.floor(math.log10(self.step)))
        for number in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + number * self.step
            _, y = self.place(0, value)
            self.draw.line((self.left, y, self.right, y), "#dddddd", _FINE)
            self.draw.text((self.left - 8 * _FINE, y), f"{value:.{decimals}f}", "black", self.font, "rm")
        for frame in range(0, self.frames, max(1, round(nice_step(self.frames)))):
            x, _ = self.place(frame, self.low)
            self.draw.line((x, self.bottom, x, self.bottom + 5 * _FINE), "black", _FINE)
            self.draw.text((x, self.bottom + 8 * _FINE), str(frame * self.every), "black", self.font, "mt")
        self.draw.line((self.left, self.top, self.left, self.bottom, self.right, self.bottom), "black", _FINE)
        self.draw.text(((self.left + self.right) / 2, self.bottom + 28 * _FINE), self.across, "black", self.font, "mt")

    def draw_curve(self, curve: Curve, colour: str) -> None:
        points = [self.place(frame, value) for frame, value in enumerate(curve.values)]
        self.draw.line(points, colour, 2 * _FINE, "curve")
        spacing = (self.right - self.left) / self.frames
        radius = min(4 * _FINE, spacing / 4)  # dots that would touch become a line
        for x, y in points:
            self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def draw_legend(self, curves: Sequence[Curve]) -> None:
        x, y = self.left, self.top / 2
        for curve, colour in zip(curves, COLOURS, strict=False):
            self.draw.line((x, y, x + 24 * _FINE, y), colour, 4 * _FINE)
            self.draw.text((x + 30 * _FINE, y), curve.label, "black", self.font, "lm")
            x += 54 * _FINE + self.font.getlength(curve.label)
