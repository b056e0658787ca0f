"""Fonts for words in any script: Pillow's own where it has the letters, else one of the system's."""

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
_NOWHERE = "\U0010ffff"  # no character, so no font has a picture of it
_TRIED = 24  # pixels: pictures of letters are compared at this size
_INVISIBLE = ("C", "Z", "M")  # categories of characters that may have no picture of their own: controls, spaces, marks
# Words in the names of fonts that are no plain ones; others are tried before.
_SPECIAL = ("bold", "italic", "oblique", "light", "thin", "black", "medium", "mono", "condensed", "serif", "math", "symbol")


@dataclass(frozen=True)
class ChosenFont:
    """A font for a text, and those letters of the text that no font here has."""

    font: ImageFont.FreeTypeFont
    missing: str


def choose_font(text: str, size: float) -> ChosenFont:
    """The first font that has all letters of `text`, or the one that lacks the fewest; `size` in pixels."""
    path, missing = _best("".join(sorted(set(text))), tuple(font_folders()))
    font = ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)
    return ChosenFont(font, missing)


def cannot_be_drawn(texts: Sequence[str]) -> list[str]:
    """Those of the texts that have letters which no font here has."""
    return [text for text in texts if choose_font(text, _TRIED).missing]


def font_folders() -> list[Path]:
    """Where the system and the person keep fonts."""
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")
        return [Path(os.environ.get("WINDIR", "C:/Windows"), "Fonts"), Path(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"]
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".local" / "share" / "fonts", home / ".fonts"]


@cache
def _best(letters: str, folders: tuple[Path, ...]) -> tuple[str | None, str]:
    """The file of the font for these letters, None for Pillow's own, and the letters that it lacks."""
    fewest: tuple[str | None, str] = None, _lacking(ImageFont.load_default(_TRIED), letters)
    for path in _font_files(folders) if fewest[1] else ():
        try:
            lacking = _lacking(ImageFont.truetype(path, _TRIED), letters)
        except OSError:  # a damaged font, or one of pictures of another size
            continue
        if len(lacking) < len(fewest[1]):
            fewest = path, lacking
        if not lacking:
            break
    return fewest


@cache
def _font_files(folders: tuple[Path, ...]) -> list[str]:
    """All fonts in the folders, plain ones first."""
    found = [
        os.path.join(place, name)
        for folder in folders
        for place, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_ENDINGS)
    ]
    return sorted(found, key=lambda path: (any(word in Path(path).name.lower() for word in _SPECIAL), Path(path).name, path))


def _lacking(font: ImageFont.FreeTypeFont, letters: str) -> str:
    """The letters that the font draws as it draws what it does not have: by a box, or not at all."""
    box = _picture(font, _NOWHERE)
    seen = [letter for letter in letters if unicodedata.category(letter)[0] not in _INVISIBLE]
    return "".join(letter for letter in seen if _picture(font, letter) in (box, b""))


def _picture(font: ImageFont.FreeTypeFont, letter: str) -> bytes:
    return bytes(font.getmask(letter))
