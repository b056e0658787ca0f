"""Clips that other programs wrote, read back."""

import io
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.clip_files import clip_name, find_clips, read_clip
from dreamvideo_core.media.decoding import read_window
from dreamvideo_core.media.video import save_clip


def clip(frames: int = 4, height: int = 24, width: int = 40) -> torch.Tensor:
    """A bright bar that moves to the right."""
    made = -torch.ones(frames, 3, height, width)
    for number in range(frames):
        made[number, 0, :, 8 * number : 8 * number + 8] = 1.0
    return made


@pytest.mark.parametrize(("name", "tolerance"), [("c.mp4", 0.2), ("c.webp", 0), ("c.gif", 0.05), ("c", 0)])
def test_what_was_written_is_read(tmp_path, name, tolerance):
    save_clip(tmp_path / name, clip(), fps=5)
    found = read_clip(tmp_path / name, fps=10)
    assert (found.frames - clip()).abs().mean() <= tolerance
    assert found.milliseconds == [200 if "." in name else 100] * 4


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    made = torch.linspace(-1, 1, 12).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    save_clip(tmp_path / "c", made)
    for number, picture in enumerate(sorted((tmp_path / "c").iterdir())):
        picture.rename(tmp_path / "c" / f"frame-{number}.png")
    assert (read_clip(tmp_path / "c", 8).frames - made).abs().max() < 0.01


def test_videos_filmed_lying_are_turned_upright(tmp_path):
    save_clip(tmp_path / "c.mp4", clip(), fps=5)
    written = (tmp_path / "c.mp4").read_bytes()
    matrix = written.index(b"tkhd") + 44  # of the track header: how a player has to turn the picture
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (tmp_path / "c.mp4").write_bytes(written[:matrix] + quarter + written[matrix + len(quarter) :])
    true = torch.rot90(clip(), -1, (2, 3))
    for read in (read_clip(tmp_path / "c.mp4", 5).frames, read_window(io.BytesIO((tmp_path / "c.mp4").read_bytes()), 0, 4, 1)):
        assert read.shape == true.shape
        assert (read - true).abs().mean() < 0.02


def test_each_frame_is_shown_as_long_as_before(tmp_path):
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    pictures[0].save(tmp_path / "c.webp", save_all=True, append_images=pictures[1:], duration=[40, 500, 120], lossless=True)
    assert read_clip(tmp_path / "c.webp", 8).milliseconds == [40, 500, 120]


def test_clips_are_found_by_name(tmp_path):
    for name in ("b.mp4", "a.b.webp", "dir.1", "a.gif"):
        save_clip(tmp_path / name, clip()) if name != "dir.1" else save_clip(tmp_path / "tmp", clip())
    (tmp_path / "tmp").rename(tmp_path / "dir.1")
    (tmp_path / "captions.csv").write_text("path,caption\n")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert {name: path.name for name, path in find_clips(tmp_path).items()} == {
        "a.b": "a.b.webp", "a": "a.gif", "b": "b.mp4", "dir.1": "dir.1",
    }  # fmt: skip
    assert [clip_name(name) for name in ("x/b.MP4", "dir.1", "a.b.webp")] == ["b", "dir.1", "a.b"]


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"generated is .*nowhere', which is no folder"):
        find_clips(tmp_path / "nowhere", "generated")
    with pytest.raises(InputError, match=r"in which there is no clip; allowed: \.mp4, "):
        find_clips(tmp_path)
    for name in ("a.gif", "a.webp"):
        save_clip(tmp_path / name, clip())
    with pytest.raises(InputError, match=r"a.gif and a.webp, two clips of one name"):
        find_clips(tmp_path)


def test_files_that_are_no_clips(tmp_path):
    for name in ("a.mp4", "a.webp", "a.gif"):
        (tmp_path / name).write_bytes(b"no clip" * 20)
        with pytest.raises(InputError, match=f"{name}' is no readable clip"):
            read_clip(tmp_path / name, 8)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(InputError, match="there is no video in it"):
        read_clip(tmp_path / "sound.mp4", 8)
    (tmp_path / "sizes").mkdir()
    for number, side in enumerate((8, 16)):
        Image.new("RGB", (side, side)).save(tmp_path / "sizes" / f"{number}.png")
    with pytest.raises(InputError, match="has no frames, or frames of different sizes"):
        read_clip(tmp_path / "sizes", 8)
