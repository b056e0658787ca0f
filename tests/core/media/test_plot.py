"""Curves and trails as pictures."""

import math

import pytest
import torch
from PIL import ImageColor

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.plot import COLOURS, Curve, Trail, frame_plot, nice_step, trail_plot


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


@pytest.mark.parametrize("words", [0, 1, 5])
def test_a_legend_fits(words):
    names = [f"a model with {'quite ' * words}a long name, number {number}" for number in range(4)]
    legend = frame_plot([Curve(name, [0.0, 1.0]) for name in names])[0, :, :36]
    assert (legend[:, :, -1] == 1).all() and (legend[:, :, 320:] < 0).any()
    for colour in COLOURS:
        wanted = torch.tensor(ImageColor.getrgb(colour)) / 127.5 - 1
        assert ((legend - wanted[:, None, None]).abs().amax(0) < 0.05).any()


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
        ([Curve("c", [])], "c has no values; allowed: at least one"),
        ([Curve("c", [0.0]), Curve("d", [0.0, 1.0])], r"the curves have \[1, 2\] values"),
        ([Curve("CLIP", [0.0, math.nan])], "CLIP has values that are no numbers"),
    ],
)
def test_what_cannot_be_drawn(curves, words):
    with pytest.raises(InputError, match=words):
        frame_plot(curves)


def test_a_trail_goes_where_its_places_say_and_names_them():
    """Up, then to the right."""
    plot = trail_plot([Trail("t", {"a": (0.0, 0.0), "b": (0.0, 1.0), "c": (2.0, 1.0)})])
    columns = coloured(plot, COLOURS[0]).nonzero()[:, 1]
    assert columns.max() - columns.min() > 300
    assert not coloured(plot, COLOURS[0])[120:, 200:].any()  # the corner that the trail leaves out
    renamed = trail_plot([Trail("t", {"a": (0.0, 0.0), "b": (0.0, 1.0), "other": (2.0, 1.0)})])
    assert not torch.equal(plot, renamed)


def test_trails_may_differ_in_length_and_be_a_single_place():
    plot = trail_plot([Trail("one", {"a": (1.0, 0.5)}), Trail("two", {"a": (1.0, 0.5), "b": (1.2, 0.4), "c": (1.4, 0.6)})])
    assert plot.shape == (1, 3, 400, 640) and coloured(plot, COLOURS[1]).any()


@pytest.mark.parametrize(
    ("trails", "words"),
    [
        ([], "there are 0 curves; allowed: 1 to 4"),
        ([Trail("t", {})], "t has no values; allowed: at least one"),
        ([Trail("t", {"a": (math.inf, 0.0)})], "t has values that are no numbers"),
    ],
)
def test_what_cannot_be_a_trail(trails, words):
    with pytest.raises(InputError, match=words):
        trail_plot(trails)
