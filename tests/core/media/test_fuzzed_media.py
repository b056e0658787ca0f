"""Damaged pictures and videos: whatever their bytes, reading them ends in a picture or in one sentence with the file's name."""

import io
import warnings
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from video_files import write_video

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.clip_files import read_clip
from dreamvideo_core.media.decoding import UnusableClip, read_info, read_window
from dreamvideo_core.media.images import read_image

FUZZ = settings(
    derandomize=True, deadline=None, max_examples=400, suppress_health_check=list(HealthCheck), print_blob=False, database=None
)
PICTURES = ("png", "jpeg", "webp", "gif", "tiff", "bmp", "ppm", "ico")
VIDEOS = {"mp4": "libx264", "mov": "png", "mkv": "ffv1", "avi": "mjpeg", "webm": "libvpx-vp9"}
KINDS = {"mjpeg": "yuvj420p", "png": "rgb24"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Whole videos, whole.mp4 and so on; room for damaged ones."""
    folder = tmp_path_factory.mktemp("damaged")
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 32, 3), np.uint8)
    for kind, codec in VIDEOS.items():
        write_video(folder / f"whole.{kind}", pictures, codec, KINDS.get(codec, "yuv420p"))
    return folder


@cache
def picture(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@st.composite
def damage(draw) -> tuple[list[tuple[float, int]], float]:
    """Bytes at places, as shares of the length, and the share of the file that is left."""
    place = st.floats(0, 0.999) | st.floats(0, 0.15)  # most of what can go wrong lies in the header
    changes = draw(st.lists(st.tuples(place, st.integers(0, 255) | st.sampled_from([0, 0x7F, 0x80, 0xFF])), max_size=8))
    return changes, draw(st.just(1.0) | st.floats(0, 1))


def damaged(data: bytes, how: tuple[list[tuple[float, int]], float]) -> bytes:
    changed = bytearray(data)
    for place, value in how[0]:
        changed[int(place * len(data))] = value
    return bytes(changed[: int(how[1] * len(data))])


@FUZZ
@given(kind=st.sampled_from(PICTURES), how=damage())
def test_damaged_pictures(folder, kind, how):
    path = folder / f"picture.{kind}"
    path.write_bytes(damaged(picture(kind), how))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of what it mends
        try:
            image = read_image(path, "--image")
        except InputError as error:
            assert f"--image is {str(path)!r}" in str(error)
        else:
            assert image.shape[:2] == (1, 3) and image.isfinite().all()


@FUZZ
@given(kind=st.sampled_from((*VIDEOS, "gif", "webp")), how=damage())
def test_damaged_clips(folder, kind, how):
    path = folder / f"clip.{kind}"
    path.write_bytes(damaged((folder / f"whole.{kind}").read_bytes() if kind in VIDEOS else picture(kind), how))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            frames = read_clip(path, 8).frames
        except InputError as error:
            assert repr(str(path)) in str(error)
        else:
            assert len(frames) and frames.isfinite().all()
    with path.open("rb") as file:
        try:
            info = read_info(file)
            assert read_window(file, 0, 2, 1).shape[-2:] == (info.height, info.width)
        except UnusableClip as why:
            assert str(why)
