"""A TrueType font of a few letters, so that tests do not depend on the fonts of a machine."""

from __future__ import annotations

import struct
from pathlib import Path

_EM = 1000
_BOX = [(100, 0), (100, 700), (500, 700), (500, 0)]  # what the font draws for letters that it does not have
_TRIANGLE = [(100, 0), (300, 700), (500, 0)]


def write_font(path: Path, letters: str) -> Path:
    """Every one of the letters is a triangle; code points up to U+10FFFF."""
    glyphs = [_glyph(_BOX), _glyph(_TRIANGLE)]
    offsets = [0, len(glyphs[0]), len(glyphs[0]) + len(glyphs[1])]
    tables = {
        b"cmap": _cmap(sorted(set(letters))),
        b"glyf": b"".join(glyphs),
        b"head": struct.pack(">IIIIHHqqhhhhHHhhh", 0x10000, 0, 0, 0x5F0F3CF5, 0, _EM, 0, 0, 0, 0, 600, 700, 0, 8, 2, 1, 0),
        b"hhea": struct.pack(">IhhhHhhhhhhhhhhhH", 0x10000, 800, -200, 0, 600, *[0] * 11, 2),
        b"hmtx": struct.pack(">HhHh", 600, 100, 600, 100),
        b"loca": struct.pack(">III", *offsets),
        b"maxp": struct.pack(">IH13H", 0x10000, 2, 4, 1, *[0] * 11),
    }
    place, records, body = 12 + 16 * len(tables), b"", b""
    for tag, data in tables.items():
        records += struct.pack(">4sIII", tag, 0, place + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    path.write_bytes(struct.pack(">IHHHH", 0x10000, len(tables), 64, 2, 48) + records + body)
    return path


def _glyph(points: list[tuple[int, int]]) -> bytes:
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in zip([(0, 0), *points], points, strict=False)]
    coordinates = struct.pack(f">{2 * len(steps)}h", *[x for x, _ in steps], *[y for _, y in steps])
    head = struct.pack(">hhhhhHH", 1, 100, 0, 500, 700, len(points) - 1, 0)
    made = head + b"\1" * len(points) + coordinates  # every point is on the curve
    return made + b"\0" * (-len(made) % 4)


def _cmap(letters: list[str]) -> bytes:
    """Format 12: groups of code points, here one letter each, all shown by glyph 1."""
    groups = b"".join(struct.pack(">III", ord(letter), ord(letter), 1) for letter in letters)
    return struct.pack(">HHHHI", 0, 1, 3, 10, 12) + struct.pack(">HHIII", 12, 0, 16 + len(groups), 0, len(letters)) + groups
