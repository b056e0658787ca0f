"""Curves as pictures."""

import math

import pytest
import torch
from PIL import ImageColor

from dreamvideo_core.checks import InputError
from dreamvideo_core.plot import COLOURS, Curve, frame_plot, nice_step


def coloured(plot: torch.Tensor, colour: str) -> torch.Tensor:
    """Where a plot (1, 3, H, W) has a colour, below the legend: (H, W)."""
    wanted = torch.tensor(ImageColor.getrgb(colour)) / 127.5 - 1
    found = (plot[0] - wanted[:, None, None]).abs().amax(0) < 0.05
    found[:40] = False
    return found


def test_a_rising_and_a_falling_curve():
    rising, falling = Curve("rising", [0.1, 0.5, 0.9]), Curve("falling", [0.9, 0.5, 0.1])
    plot = frame_plot([rising, falling], width=300, height=200)
    assert plot.shape == (1, 3, 200, 300) and plot.min() >= -1 and plot.max() <= 1
    for colour, up in zip(COLOURS, (True, False), strict=False):
        rows, columns = coloured(plot, colour).nonzero().unbind(1)
        start, end = rows[columns < columns.min() + 5].float().mean(), rows[columns > columns.max() - 5].float().mean()
        assert (end < start) == up and abs(end - start) > 60
    assert (plot[0, :, :, -1] == 1).all() and (plot[0, :, -1] == 1).all()


def test_values_lie_where_the_grid_says():
    """With ticks at 0 and 1 only the ends of the axis: 0 on the lowest line, 1 on the highest, 0.5 between them."""
    rows = [coloured(frame_plot([Curve("c", [0.0, v, 1.0])]), COLOURS[0]).nonzero() for v in (0.0, 0.5, 1.0)]
    middles = [r[(r[:, 1] - 342).abs() <= 1, 0].float().mean() for r in rows]
    assert middles[0] == pytest.approx(348, abs=3) and middles[2] == pytest.approx(40, abs=5)
    assert middles[1] == pytest.approx(194, abs=3)


@pytest.mark.parametrize("values", [[1.0], [0.5] * 8, [0.7, 0.7 + 1e-7], [-1.0, 1.0], [0.3] * 2000])
def test_any_number_of_frames_and_any_span(values):
    assert coloured(frame_plot([Curve("c", values)]), COLOURS[0]).any()


def test_another_label_is_another_legend():
    assert not torch.equal(frame_plot([Curve("one", [0.5])]), frame_plot([Curve("two", [0.5])]))


def test_the_axis_says_what_is_counted_and_by_how_much():
    curves = [Curve("c", [0.0, 0.5, 1.0])]
    plain, counted, named = (frame_plot(curves, **said)[0] for said in ({}, {"every": 50}, {"across": "step"}))
    assert not torch.equal(plain[:, 350:370], counted[:, 350:370]) and torch.equal(plain[:, :348], counted[:, :348])
    assert not torch.equal(plain[:, 370:], named[:, 370:]) and torch.equal(plain[:, :370], named[:, :370])


@pytest.mark.parametrize(("span", "step"), [(1, 0.2), (0.8, 0.1), (0.01, 0.002), (8, 1), (100, 20), (2000, 500), (3, 0.5)])
def test_steps_between_ticks(span, step):
    assert nice_step(span) == pytest.approx(step)


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ([], "there are 0 curves; allowed: 1 to 4"),
        ([Curve("c", [0.0])] * 5, "there are 5 curves"),
        ([Curve("c", [])], r"the curves have \[0\] values"),
        ([Curve("c", [0.0]), Curve("d", [0.0, 1.0])], r"the curves have \[1, 2\] values"),
        ([Curve("CLIP", [0.0, math.nan])], "CLIP has values that are no numbers"),
    ],
)
def test_what_cannot_be_drawn(curves, words):
    with pytest.raises(InputError, match=words):
        frame_plot(curves)
