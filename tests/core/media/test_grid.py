"""Clips beside each other."""

import pytest
import torch

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.grid import clip_grid, film_strip

GAP = 4


def clip(value: float, frames: int = 3, height: int = 8, width: int = 8) -> torch.Tensor:
    """Frame k is of one grey, `value` + k / 10."""
    return (value + torch.arange(frames) / 10).view(-1, 1, 1, 1).expand(-1, 3, height, width)


def test_cells_lie_row_by_row_and_clips_play_together():
    a, b, c = clip(-0.8), clip(-0.4, frames=2), clip(0.0, height=16, width=16)
    grid = clip_grid([a, b, c], columns=2)
    assert grid.shape == (3, 3, 8 + GAP + 8, 8 + GAP + 8)
    assert torch.equal(grid[..., :8, :8], a)
    assert torch.equal(grid[:2, :, :8, 12:], b) and torch.equal(grid[2, :, :8, 12:], b[1])
    torch.testing.assert_close(grid[..., 12:, :8], clip(0.0))
    assert (grid[..., 12:, 12:] == 1).all() and (grid[..., 8:12, :] == 1).all()


def test_no_more_columns_than_clips():
    assert clip_grid([clip(0.0)], columns=9).shape == (3, 3, 8, 8)


def test_captions_stand_above_and_are_broken_into_lines():
    cells = [clip(0.0, height=64, width=96), clip(0.5, height=64, width=96)]
    plain, captioned = clip_grid(cells), clip_grid(cells, ["image scale of one and a half"])
    bar = captioned.shape[-2] - plain.shape[-2]
    assert bar > 16
    torch.testing.assert_close(captioned[..., bar:, :], plain)
    above = captioned[..., :bar, :96].amin((0, 1)) < 0
    assert above[: bar // 2].any() and above[bar // 2 :].any()
    assert (captioned[..., :bar, 100:] == 1).all()


@pytest.mark.parametrize("height", [64, 128, 192, 240, 384])
def test_captioned_grids_have_even_heights_as_videos_need(height):
    assert clip_grid([clip(0.0, height=height, width=96)] * 3, ["left"], columns=1).shape[-2] % 2 == 0


def test_a_strip_of_chosen_frames():
    strip = film_strip(clip(-0.5, frames=6), [0, 2, -1])
    assert strip.shape == (1, 3, 8, 3 * 8 + 2 * GAP)
    torch.testing.assert_close(strip[0, 0, 0, [0, 12, 24]], torch.tensor([-0.5, -0.3, 0.0]))
    assert (strip[..., 8:12] == 1).all()


def test_a_picture_heads_the_strip():
    strip = film_strip(clip(-0.5), [0], torch.full((1, 3, 16, 32), 0.25))
    assert strip.shape == (1, 3, 8, 2 * 8 + GAP)
    torch.testing.assert_close(strip[0, 0, 0, [0, 12]], torch.tensor([0.25, -0.5]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: clip_grid([]), "there is no clip"),
        (lambda: clip_grid([clip(0)], columns=0), "columns is 0; allowed: 1 or more"),
        (lambda: clip_grid([clip(0)], ["a", "b"]), "2 captions for 1 clips"),
        (lambda: clip_grid([clip(0)], ["word " * 2000]), "captions has one, 'word .* of 10000 characters; allowed: up to 1000"),
        (lambda: film_strip(clip(0), []), "frames names none"),
        (lambda: film_strip(clip(0), [0, 3]), "frames has 3, but a clip has 3; allowed: -3 to 2"),
    ],
)
def test_what_cannot_be_laid_out(make, words):
    with pytest.raises(InputError, match=words):
        make()
