"""Fonts for text in any script: Pillow's own if it has the characters, else one of the system's."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import ImageFont

_ENDINGS = (".ttf", ".ttc", ".otf", ".otc")
_UNASSIGNED = "\U0010ffff"  # no character: a font shows it as it shows all that it lacks
_TEST_SIZE = 24  # pixels: glyphs are compared at this size
_INVISIBLE = ("C", "Z", "M")  # Unicode categories that may have no glyph: controls, separators, combining marks
# Fonts with these words in their file names are tried last.
_SPECIAL = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "condensed", "serif", "math", "symbol")


@dataclass(frozen=True)
class ChosenFont:
    """A font for a text, and the text's characters that this font lacks."""

    font: ImageFont.FreeTypeFont
    missing: str


def choose_font(text: str, size: float) -> ChosenFont:
    """The first font that has all characters of `text`, or the one that lacks the fewest; `size` is in pixels."""
    path, missing = _best("".join(sorted(set(text))), tuple(font_folders()))
    font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    return ChosenFont(font, missing)


def undrawable(texts: Sequence[str]) -> list[str]:
    """The texts that no font of this machine can show whole."""
    return [text for text in texts if choose_font(text, _TEST_SIZE).missing]


def font_folders() -> list[Path]:
    """The folders of the system's and the user's fonts."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"), Path(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local" / "share" / "fonts", home / ".fonts"]


@cache
def _best(letters: str, folders: tuple[Path, ...]) -> tuple[str | None, str]:
    """The best font's file, None for Pillow's own, and the letters that it lacks."""
    best: tuple[str | None, str] = None, _lacking(ImageFont.load_default(_TEST_SIZE), letters)
    for path in _font_files(folders) if best[1] else ():
        try:
            lacking = _lacking(ImageFont.truetype(path, _TEST_SIZE), letters)
        except OSError:  # a damaged font, or a bitmap font without this size
            continue
        if len(lacking) < len(best[1]):
            best = path, lacking
        if not lacking:
            break
    return best


@cache
def _font_files(folders: tuple[Path, ...]) -> list[str]:
    """All fonts in the folders, regular ones first."""
    found = [
        os.path.join(subfolder, name)
        for folder in folders
        for subfolder, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_ENDINGS)
    ]
    return sorted(found, key=lambda path: (any(word in Path(path).name.lower() for word in _SPECIAL), Path(path).name, path))


def _lacking(font: ImageFont.FreeTypeFont, letters: str) -> str:
    """The visible letters that the font draws as its "missing" box, or not at all."""
    box = _glyph(font, _UNASSIGNED)
    visible = [letter for letter in letters if unicodedata.category(letter)[0] not in _INVISIBLE]
    return "".join(letter for letter in visible if _glyph(font, letter) in (box, b""))


def _glyph(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    return bytes(font.getmask(letter))
