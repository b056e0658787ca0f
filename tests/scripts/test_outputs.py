"""The contact sheet."""

from pathlib import Path

import av
import numpy
import pytest
from comfy_host import outputs
from PIL import Image

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]


def test_every_frame_of_a_video_is_on_the_sheet(tmp_path: Path):
    clip = _write_video(tmp_path / "clip_00001_.mp4")
    path = outputs.write_contact_sheet([clip], tmp_path)
    assert path == tmp_path / "clip_00001.contact-sheet.png"
    _check_sheet(Image.open(path), tolerance=12)


def test_every_frame_of_an_animated_image_is_on_the_sheet(tmp_path: Path):
    clip = tmp_path / "clip.webp"
    first, *others = _frames()
    first.save(clip, save_all=True, append_images=others, lossless=True)
    _check_sheet(Image.open(outputs.write_contact_sheet([clip], tmp_path)), tolerance=0)


def test_stills_make_a_sheet_when_there_is_no_clip(tmp_path: Path):
    files = [tmp_path / f"{index}.png" for index in range(len(COLOURS))]
    for file, frame in zip(files, _frames(), strict=True):
        frame.save(file)
    assert outputs.find_clip(files) is None
    _check_sheet(Image.open(outputs.write_contact_sheet(files, tmp_path)), tolerance=0)


def test_the_clip_is_found_among_stills(tmp_path: Path):
    still = tmp_path / "still.png"
    _frames()[0].save(still)
    clip = _write_video(tmp_path / "clip.mp4")
    assert outputs.find_clip([still, clip]) == clip


def test_nothing_saved_makes_no_sheet(tmp_path: Path):
    assert outputs.write_contact_sheet([], tmp_path) is None


@pytest.mark.parametrize(("count", "size"), [(1, (256, 128)), (16, (1030, 518)), (17, (2062, 388))])
def test_large_frames_become_tiles(count, size):
    assert outputs.contact_sheet([Image.new("RGB", (1024, 512))] * count).size == size


def _frames() -> list[Image.Image]:
    return [Image.new("RGB", (32, 16), colour) for colour in COLOURS]


def _write_video(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=4, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv444p"
        for frame in _frames():
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())
    return path


def _check_sheet(sheet: Image.Image, tolerance: int) -> None:
    """Four tiles in the first row, one in the second, each of its frame's colour."""
    assert sheet.size == (4 * 34 - 2, 2 * 18 - 2)
    for index, colour in enumerate(COLOURS):
        row, column = divmod(index, 4)
        pixel = sheet.getpixel((column * 34 + 16, row * 18 + 8))
        assert numpy.abs(numpy.subtract(pixel, colour)).max() <= tolerance
