"""Videos as a player shows them: turned, mirrored, and in the colours that their tags say."""

from fractions import Fraction

import av
import av.filter
import numpy as np
import pytest
import torch
from video_files import tags_of, turn, write_video

from dreamvideo_core.media.clip_files import read_clip
from dreamvideo_core.media.decoding import UnusableClip, read_frames, read_info, read_window
from dreamvideo_core.media.tone_mapping import to_srgb
from dreamvideo_core.media.video import save_clip

BT709, BT601, BT2020, P3, PQ, HLG = 1, 6, 9, 12, 16, 18
SWSCALE = {BT709: 1, BT601: 5, BT2020: 9}
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128), (0, 0, 0)], np.uint8)

# What ffmpeg puts in front of its filters for each display matrix, as fftools/ffmpeg_filter.c has it.
AUTOROTATION = {
    (1, 0, 0, 1): (),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, 1, -1, 0): ("transpose=clock",),
    (0, -1, 1, 0): ("transpose=cclock",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}


def bars(height: int, width: int, frames: int = 1) -> np.ndarray:
    """The six colours beside each other."""
    row = np.repeat(COLOURS, width // len(COLOURS), axis=0)
    return np.broadcast_to(row, (frames, height, *row.shape)).copy()


def shown(path) -> np.ndarray:
    """The colours in the middles of the first frame's bars."""
    (frame, *_), _ = read_frames(path)
    step = frame.shape[1] // len(COLOURS)
    return frame[frame.shape[0] // 2, step // 2 :: step].astype(int)


def ordinary(rng: np.random.Generator, height: int = 32, width: int = 48) -> np.ndarray:
    """Three frames of blocks in which no two corners look alike."""
    blocks = rng.integers(0, 256, (3, height // 16, width // 16, 3), np.uint8)
    return blocks.repeat(16, 1).repeat(16, 2)


@pytest.mark.parametrize("matrix", AUTOROTATION)
def test_every_display_matrix_is_followed_as_ffmpeg_does(tmp_path, matrix):
    pictures = ordinary(np.random.default_rng(0))
    path = write_video(tmp_path / "lying.mp4", pictures, matrix=5, options={"crf": "1"})
    with av.open(str(path)) as container:
        expected = [filtered(frame, AUTOROTATION[matrix]) for frame in container.decode(video=0)]
    turn(path, *matrix)
    read, _ = read_frames(path)
    assert [frame.shape for frame in read] == [frame.shape for frame in expected]
    assert np.abs(np.stack(read).astype(int) - np.stack(expected)).max() <= 2
    with path.open("rb") as file:
        info, window = read_info(file), read_window(file, 1, 2, 1)
    assert (info.height, info.width) == expected[0].shape[:2]
    torch.testing.assert_close(window, read_clip(path, 8).frames[1:])


def filtered(frame: av.VideoFrame, chain: tuple[str, ...]) -> np.ndarray:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 8))
    filters = [graph.add(*name.split("=")) for name in chain]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


def test_an_empty_display_matrix_turns_nothing(tmp_path):
    pictures = ordinary(np.random.default_rng(0))
    path = turn(write_video(tmp_path / "clip.mp4", pictures, matrix=5, options={"crf": "1"}), 0, 0, 0, 0)
    assert np.abs(np.stack(read_frames(path)[0]).astype(int) - pictures).mean() < 3


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["yuv420p", "yuv444p", "yuv420p10le", "yuv444p12le"])
@pytest.mark.parametrize("matrix", [BT709, BT601])
def test_tagged_colours(tmp_path, matrix, kind, full):
    tags = {"colorspace": matrix, "color_primaries": BT709, "color_trc": BT709, "color_range": 2 if full else 1}
    codec, options = ("ffv1", {}) if "12" in kind else ("libx264", {"crf": "1"})
    path = write_video(
        tmp_path / "clip.mkv", bars(96, 96), codec, kind, matrix=SWSCALE[matrix], full=full, tags=tags, options=options
    )
    assert np.abs(shown(path) - COLOURS).max() <= 4


@pytest.mark.parametrize(("height", "matrix"), [(96, BT601), (718, BT601), (720, BT709)])
def test_colours_that_are_not_tagged_are_taken_by_size(tmp_path, height, matrix):
    path = write_video(tmp_path / "clip.mp4", bars(height, 96), matrix=SWSCALE[matrix], options={"crf": "1"})
    assert tags_of(path)["colorspace"] == 2
    assert np.abs(shown(path) - COLOURS).max() <= 4


@pytest.mark.parametrize(("size", "matrix"), [((24, 96), BT601), ((720, 96), BT709)])
def test_what_we_write_is_tagged_and_shown_alike(tmp_path, size, matrix):
    frames = torch.from_numpy(bars(*size)).permute(0, 3, 1, 2) / 127.5 - 1
    save_clip(tmp_path / "clip.mp4", frames)
    assert tags_of(tmp_path / "clip.mp4") == {
        "colorspace": matrix, "color_primaries": BT709, "color_trc": BT709, "color_range": 1,
    }  # fmt: skip
    assert np.abs(shown(tmp_path / "clip.mp4") - COLOURS).max() <= 8
    with av.open(str(tmp_path / "clip.mp4")) as container:  # as a player does that goes by the tags
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (matrix, 1)
        by_tag = frame.reformat(format="rgb24", src_colorspace=SWSCALE[matrix], dst_colorspace=7, src_color_range=1)
    assert np.abs(by_tag.to_ndarray()[size[0] // 2, 8::16].astype(int) - COLOURS).max() <= 8


def hdr(path, signal: np.ndarray, transfer: int, primaries: int = BT2020):
    """A 10-bit clip of greys and colours given as signal from 0 to 1, (N, 3)."""
    row = np.repeat((signal * 65535).round().astype(np.uint16), 16, axis=0)
    pictures = np.broadcast_to(row, (2, 32, *row.shape)).copy()
    tags = {"colorspace": BT2020, "color_primaries": primaries, "color_trc": transfer, "color_range": 1}
    return write_video(path, pictures, "libx264", "yuv420p10le", matrix=9, tags=tags, options={"crf": "1"})


# Reference white of 203 cd/m2, the peak of 1000, and 18 % grey as BT.2408 places them.
LEVELS = {HLG: (0.75, 1.0, 0.38), PQ: (0.58, 0.752, 0.38)}


@pytest.mark.parametrize("transfer", LEVELS)
def test_high_dynamic_range_is_toned(tmp_path, transfer):
    signal = np.array([[level] * 3 for level in (0.0, *LEVELS[transfer])])
    (frame, _), _ = read_frames(hdr(tmp_path / "hdr.mp4", signal, transfer))
    black, white, peak, grey = frame[16, 8::16].astype(int)
    assert black.max() <= 1 and 225 <= white.min() <= white.max() <= 240 and peak.min() >= 253
    assert 95 <= grey.min() <= grey.max() <= 120
    assert max(np.ptp(colour) for colour in (black, white, peak, grey)) <= 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_toning_keeps_order_and_hue(transfer):
    ramp = torch.linspace(0, 1, 200)
    greys = to_srgb(ramp.view(1, -1, 1).expand(-1, -1, 3), transfer, BT2020)[0]
    assert (greys.diff(dim=0) >= 0).all() and (greys[0] == 0).all() and greys[-1].min() > 0.999
    torch.testing.assert_close(greys[:, 0], greys[:, 2], atol=2e-3, rtol=0)
    red = to_srgb(torch.tensor([[[0.6, 0.3, 0.3]]]), transfer, BT2020).flatten()
    assert red[0] > 2 * red[1] and red[0] > 2 * red[2]


def test_wide_gamut_becomes_srgb(tmp_path):
    """Pure red of sRGB is (0.6274, 0.0691, 0.0164) in linear BT.2020, as BT.2087 has it."""
    linear = np.array([[0.6274, 0.0691, 0.0164], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]])
    signal = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, linear * 12.92)
    (frame, _), _ = read_frames(hdr(tmp_path / "wide.mp4", signal, transfer=14))
    red, grey, white = frame[16, 8::16].astype(int)
    assert red[0] >= 250 and red[1:].max() <= 25
    assert np.abs(grey - 188).max() <= 2 and white.min() >= 253
    p3 = to_srgb(torch.tensor([[[0.9, 0.2, 0.1]]]), BT709, P3).flatten()
    assert p3[0] > 0.93 and p3[1] < 0.15


def test_matrices_that_nobody_can_read_are_named(tmp_path):
    path = write_video(tmp_path / "clip.mp4", bars(32, 96), tags={"colorspace": 14})
    with pytest.raises(UnusableClip, match=r"coded by matrix 14 of ITU-T H\.273"):
        read_frames(path)


def test_pixels_that_are_no_squares(tmp_path):
    path = write_video(tmp_path / "clip.mp4", bars(32, 96), matrix=5, pixel=Fraction(4, 3), options={"crf": "1"})
    with path.open("rb") as file:
        info, window = read_info(file), read_window(file, 0, 1, 1)
    assert (info.height, info.width) == window.shape[-2:] == (32, 128)
    assert np.abs(shown(path) - COLOURS).max() <= 4
    path = write_video(tmp_path / "clip.mp4", bars(32, 96), pixel=Fraction(20, 1))
    with pytest.raises(UnusableClip, match="its pixels are 20 times as wide as high"):
        read_frames(path)


def test_interlaced_frames_become_whole(tmp_path):
    """A bar that moves between the two fields of a frame: combed where the fields are only woven."""
    pictures = np.zeros((6, 64, 96, 3), np.uint8)
    for number, picture in enumerate(pictures):
        for field in (0, 1):
            left = 10 * number + 5 * field
            picture[field::2, left : left + 20] = 255
    options = {"crf": "1", "x264-params": "interlaced=1"}
    path = write_video(tmp_path / "clip.mp4", pictures, matrix=5, options=options)
    with av.open(str(path)) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    frames, _ = read_frames(path)
    assert len(frames) == 6
    combs = [np.abs(np.diff(f[8:-8, :, 1].astype(int), axis=0)).mean() for f in (pictures[3], frames[3])]
    assert combs[1] < combs[0] / 4
    with path.open("rb") as file:
        assert torch.equal(read_window(file, 2, 2, 2), read_clip(path, 8).frames[2:5:2])


TRANSPARENT = {"png": ("clip.mov", "rgba"), "qtrle": ("clip.mov", "argb")}
TRANSPARENT |= {codec: ("clip.webm", "yuva420p") for codec in ("libvpx", "libvpx-vp9")}


@pytest.mark.parametrize("codec", TRANSPARENT)
def test_what_is_transparent_in_a_video_is_white(tmp_path, codec):
    name, kind = TRANSPARENT[codec]
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=8, options={"auto-alt-ref": "0"} if "vpx" in codec else {})
        stream.height, stream.width, stream.pix_fmt = 16, 32, kind
        picture = np.zeros((16, 32, 4), np.uint8)
        picture[:, 16:, 3] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    (frame,), _ = read_frames(tmp_path / name)
    with (tmp_path / name).open("rb") as file:
        info, window = read_info(file), read_window(file, 0, 1, 1)
    assert info.frames == 1 and torch.equal(window, read_clip(tmp_path / name, 8).frames)
    assert frame[:, :14].min() >= 253 and frame[:, 18:].max() <= 2


@pytest.mark.parametrize("kind", ["gray", "gray10le"])
def test_grey_videos(tmp_path, kind):
    ramp = np.broadcast_to(np.linspace(0, 255, 64).round().astype(np.uint8)[None, None, :, None], (1, 32, 64, 3)).copy()
    path = write_video(tmp_path / "clip.mkv", ramp, "ffv1", kind)
    (frame,), _ = read_frames(path)
    assert np.abs(frame.astype(int) - ramp[0]).max() <= 3


def test_clips_that_begin_in_the_middle(tmp_path):
    """Of a transport stream that was cut: its first whole picture comes some frames in."""
    pictures = ordinary(np.random.default_rng(1)).repeat(8, axis=0)
    path = write_video(tmp_path / "clip.ts", pictures, matrix=5, options={"crf": "1", "x264-params": "keyint=12:scenecut=0"})
    whole = path.read_bytes()
    path.write_bytes(whole[188 * (len(whole) // 188 // 4) :])
    frames, _ = read_frames(path)
    assert 0 < len(frames) < len(pictures)
    left = np.stack(frames).astype(int) - pictures[-len(frames) :]
    assert np.abs(left).mean() < 6


def test_only_the_first_frames_are_decoded_where_more_are_not_wanted(tmp_path):
    path = write_video(tmp_path / "clip.mp4", bars(32, 96, frames=20))
    assert len(read_frames(path, most=3)[0]) == 3 and len(read_frames(path)[0]) == 20
    assert len(read_clip(path, 8, most=3).frames) == 3
