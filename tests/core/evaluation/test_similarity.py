"""Frames against pictures."""

import pytest
import torch

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.metrics import first_frame_ssim
from dreamvideo_core.evaluation.similarity import check_side, embedding_similarity, frame_ssim, reference_per_frame


def noise(count: int, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count)) * 2 - 1


def test_one_picture_stands_for_every_frame():
    frames, picture = noise(19), noise(1)
    found = frame_ssim(frames, reference_per_frame(picture, frames))
    torch.testing.assert_close(found, first_frame_ssim(frames, picture.expand(19, -1, -1, -1)))


def test_each_frame_is_compared_with_its_own():
    frames = noise(19)
    others = frames.clone()
    others[[3, 17]] = noise(2)
    found = frame_ssim(frames, reference_per_frame(others, frames))
    assert (found < 0.9).nonzero()[:, 0].tolist() == [3, 17]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (noise(1, 12, 20), "reference is 20 x 12 pixels, but frames are 16 x 12; allowed: the same size"),
        (noise(2), "reference has 2 pictures for 3 frames; allowed: 1, or one for each frame"),
    ],
)
def test_references_that_do_not_fit(reference, words):
    with pytest.raises(InputError, match=words):
        reference_per_frame(reference, noise(3))


def test_the_least_side_is_what_ssim_takes():
    check_side("frames", noise(1, 6, 6))
    frame_ssim(noise(1, 6, 6), noise(1, 6, 6))
    with pytest.raises(InputError, match="frames: 9 x 5 pixels; allowed: 6 x 6 or more"):
        check_side("frames", noise(1, 5, 9))
    with pytest.raises(RuntimeError):
        frame_ssim(noise(1, 5, 9), noise(1, 5, 9))


def test_cosines_by_hand():
    first = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0]])
    torch.testing.assert_close(embedding_similarity(first, torch.tensor([[2.0, 0.0]])), torch.tensor([1.0, 0.6, -1.0]))
    torch.testing.assert_close(embedding_similarity(first.half(), first.half()), torch.ones(3), rtol=0, atol=1e-6)
