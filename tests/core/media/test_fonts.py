"""Words in any script. Which fonts are on a machine is its own affair: here the folders are given."""

import pytest
import torch
from tiny_font import write_font

from dreamvideo_core.media import fonts
from dreamvideo_core.media.fonts import choose_font, undrawable
from dreamvideo_core.media.grid import clip_grid
from dreamvideo_core.media.plot import Curve, frame_plot

CHINESE, ARABIC, EMOJI = "红圆向右移动", "الدائرة تتحرك", "🙂"


@pytest.fixture(autouse=True)
def forget():
    """What was found before; fonts that are installed while a process runs are seen by the next one."""
    fonts._font_files.cache_clear()
    fonts._best.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder of fonts."""
    monkeypatch.setattr(fonts, "font_folders", lambda: [tmp_path, tmp_path / "missing"])
    (tmp_path / "fonts").mkdir()
    return tmp_path / "fonts"


def captioned(caption: str, width: int = 96, clips: int = 1) -> torch.Tensor:
    """The bar above a white clip."""
    return clip_grid([torch.ones(1, 3, 64, width)] * clips, [caption])[0, :, :-64]


def test_words_that_pillow_has_letters_for_need_no_other_font(folder):
    write_font(folder / "a.ttf", "left")
    assert choose_font("left", 20).font.getname()[0] == "Aileron" and not undrawable(["left", ""])


@pytest.mark.parametrize("words", [CHINESE, ARABIC, EMOJI, "Привет, мир", "नमस्ते", "a\u200d b\ufe0f é"])
def test_a_font_with_all_letters_is_found(folder, words):
    (folder / "broken.ttf").write_bytes(b"no font")
    write_font(folder / "a.ttf", words.replace(words[0], ""))
    write_font(folder / "b.ttf", words)
    write_font(folder / "a bold.ttf", words)
    chosen = choose_font(words, 20)
    assert chosen.font.path == str(folder / "b.ttf") and not chosen.missing
    assert not undrawable([words])


def test_where_none_has_all_letters_the_best_draws_and_the_words_are_named(folder):
    write_font(folder / "a.ttf", CHINESE[:2])
    write_font(folder / "b.ttf", CHINESE[:4])
    chosen = choose_font(CHINESE, 20)
    assert chosen.font.path == str(folder / "b.ttf") and set(chosen.missing) == set(CHINESE[4:])
    assert undrawable(["left", CHINESE, EMOJI]) == [CHINESE, EMOJI]


def test_captions_are_drawn_by_it(folder):
    without = captioned(CHINESE)
    fonts._font_files.cache_clear()
    fonts._best.cache_clear()
    write_font(folder / "a.ttf", CHINESE)
    triangles = captioned(CHINESE)
    assert triangles.shape != without.shape or not torch.equal(triangles, without)
    assert (triangles < 0).any()


def test_words_without_spaces_are_broken_and_stay_in_their_bar(folder):
    write_font(folder / "a.ttf", CHINESE)
    short, long = captioned(CHINESE[:2]), captioned(CHINESE * 6)
    assert long.shape[-2] >= 3 * short.shape[-2]
    assert (long[..., -2:] == 1).all() and (long[..., -1, :] == 1).all()
    rows = (long.amin((0, 2)) < 0).int()
    lines = int((rows.diff() == 1).sum())
    glyphs = [int(((long[0, :, :]) < 0).sum()), int((short[0] < 0).sum())]
    assert lines >= 3 and glyphs[0] == pytest.approx(18 * glyphs[1], rel=0.1)


def test_curves_are_named_in_any_script(folder):
    values = [Curve(CHINESE, [0.1, 0.9])]
    boxes = frame_plot(values)
    fonts._font_files.cache_clear()
    fonts._best.cache_clear()
    write_font(folder / "a.ttf", CHINESE)
    assert not torch.equal(frame_plot(values), boxes)


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_every_system_has_folders(platform, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("WINDIR", "D:/Windows")
    places = [path.as_posix() for path in fonts.font_folders()]
    assert {"linux": "/usr/share/fonts", "darwin": "/System/Library/Fonts", "win32": "D:/Windows/Fonts"}[platform] in places
