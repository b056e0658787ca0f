"""Batches of clips are cut and joined tensor by tensor, whatever their first axis counts: clips or frames."""

import torch

from dreamvideo_core.common.batches import chunk, join, select
from dreamvideo_core.models.unet import Encoding

CLIPS, FRAMES = 4, 3


def encoding() -> Encoding:
    """Every number of a clip is the clip's."""
    frames, clips = torch.arange(CLIPS).repeat_interleave(FRAMES), torch.arange(CLIPS)
    maps = frames[:, None, None, None].expand(-1, 2, 5, 5)
    return Encoding((maps, maps[..., :2, :2]), maps[..., :1], clips[:, None], clips[:, None, None].expand(-1, 7, 2))


def clips_of(batch: Encoding) -> list[int]:
    """Which clips a batch has; all of its tensors must say the same."""
    frames = [tensor.flatten(1)[:, 0].tolist() for tensor in (*batch.skips, batch.mid)]
    clips = [tensor.flatten(1)[:, 0].tolist() for tensor in (batch.temb, batch.text)]
    assert clips[0] == clips[1]
    assert all(of == [clip for clip in clips[0] for _ in range(FRAMES)] for of in frames)
    return clips[0]


def test_parts_of_one_size():
    first, second = chunk(encoding(), 2)
    assert isinstance(first, Encoding)
    assert (clips_of(first), clips_of(second)) == ([0, 1], [2, 3])


def test_joined_parts_are_the_whole():
    assert clips_of(join(chunk(encoding(), CLIPS))) == [0, 1, 2, 3]
    assert clips_of(join(chunk(encoding(), 2)[::-1])) == [2, 3, 0, 1]


def test_clips_may_be_selected_in_any_order_and_again():
    assert clips_of(select(encoding(), [3, 1, 3], CLIPS)) == [3, 1, 3]


def test_plain_tensors_are_batches_too():
    frames = torch.arange(6)
    assert [part.tolist() for part in chunk(frames, 3)] == [[0, 1], [2, 3], [4, 5]]
    assert select(frames, [2, 0], 3).tolist() == [4, 5, 0, 1]
