"""Clips out, and read back by other libraries."""

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.video import check_output, save_clip


def clip(frames: int = 4, height: int = 24, width: int = 40) -> torch.Tensor:
    """A bright bar that moves to the right."""
    made = -torch.ones(frames, 3, height, width)
    for number in range(frames):
        made[number, 0, :, 8 * number : 8 * number + 8] = 1.0
    return made


def read(path) -> tuple[np.ndarray, float]:
    """Frames (T, H, W, 3) and how many of them make a second."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(stream)]), float(stream.average_rate)
    if path.is_dir():
        return np.stack([np.array(Image.open(p)) for p in sorted(path.iterdir())]), 8
    with Image.open(path) as picture:
        frames = [(np.array(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(picture)]
    return np.stack([f for f, _ in frames]), 1000 / frames[0][1]


@pytest.mark.parametrize(("name", "tolerance"), [("c.mp4", 40), ("c.webp", 0), ("c.gif", 8), ("c", 0), ("C.MP4", 40)])
@pytest.mark.parametrize("frames", [1, 4])
def test_frames_come_back(tmp_path, name, tolerance, frames):
    save_clip(tmp_path / name, clip(frames), fps=10)
    path = tmp_path / name
    if path.suffix == ".MP4":
        path = path.rename(tmp_path / "lower.mp4")
    if frames == 1 and path.suffix in (".gif", ".webp"):
        assert Image.open(path).n_frames == 1
        return
    got, fps = read(path)
    expected = ((clip(frames).permute(0, 2, 3, 1).numpy() + 1) * 127.5).round()
    assert got.shape == expected.shape
    assert fps == pytest.approx(10 if path.suffix else 8)
    assert np.abs(got - expected).mean() <= tolerance / 4
    assert [f[..., 0].mean(0).argmax() // 8 for f in got] == list(range(frames))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 72), (264, 16)])
def test_mp4_of_unusual_sizes(tmp_path, height, width):
    save_clip(tmp_path / "c.mp4", torch.zeros(3, 3, height, width))
    assert read(tmp_path / "c.mp4")[0].shape == (3, height, width, 3)


@pytest.mark.parametrize(("height", "width"), [(8, 7), (7, 8), (16386, 2)])
def test_sizes_that_no_mp4_has(tmp_path, height, width):
    with pytest.raises(InputError, match=rf"frames are {width} x {height} pixels; allowed in \.mp4: even sides up to 16384"):
        save_clip(tmp_path / "c.mp4", torch.zeros(1, 3, height, width))
    assert not list(tmp_path.iterdir())


def test_values_beyond_the_range_are_cut_off(tmp_path):
    save_clip(tmp_path / "c", torch.full((1, 3, 8, 8), 3.0))
    assert (read(tmp_path / "c")[0] == 255).all()


@pytest.mark.parametrize("name", ["c.mp4", "c.webp", "c.gif", "c"])
def test_a_failing_write_leaves_nothing(tmp_path, name, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    monkeypatch.setattr("av.VideoFrame.from_ndarray", fail, raising=False)
    with pytest.raises(OSError, match="disk full"):
        save_clip(tmp_path / name, clip())
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_and_empty_folders_filled(tmp_path):
    (tmp_path / "c.webp").write_text("old")
    (tmp_path / "c").mkdir()
    for name in ("c.webp", "c"):
        save_clip(tmp_path / name, clip())
        assert len(read(tmp_path / name)[0]) == 4


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    (tmp_path / "folder.mp4").mkdir()
    for name, words in {
        "clip.avi": "ends in .mp4, .webp, .gif",
        "full": "not an empty folder",
        "full/file": "not an empty folder",
        "folder.mp4": "which is a folder",
        "full/file/clip.mp4": "is a file",
    }.items():
        with pytest.raises(InputError, match=words):
            check_output(tmp_path / name, "--output")
    assert (tmp_path / "full" / "file").read_text() == "kept"
