"""Grids of clips under captions that play together, and strips of single frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..common.checks import InputError, check_number, shown
from .fonts import choose_font
from .images import fit_image, from_uint8

_GAP = 4  # pixels between cells
_SMALLEST_TEXT = 10  # pixels
_LONGEST_CAPTION = 1000  # characters
_SPACING = 1  # pixels between lines


def clip_grid(clips: Sequence[Tensor], captions: Sequence[str] = (), columns: int = 2) -> Tensor:
    """Clips (T, 3, H, W) in [-1, 1], row by row, as one clip (T', 3, H', W') that plays them together.

    A cell has the first clip's size; other clips are padded to it. A shorter clip holds its last frame until the longest
    ends. There may be fewer captions than clips. Raises `InputError` for no clips, too many or too long captions.
    """
    if not clips:
        raise InputError("there is no clip; connect at least one")
    check_number("columns", columns, 1)
    if len(captions) > len(clips):
        raise InputError(f"there are {len(captions)} captions for {len(clips)} clips; give one a clip at most")
    for caption in captions:
        if len(caption) > _LONGEST_CAPTION:  # its lines would be many times as high as the clips
            length = f"{len(caption)} characters; allowed: up to {_LONGEST_CAPTION}"
            raise InputError(f"captions has one, {shown(caption)}, of {length}. Shorten it")
    height, width = clips[0].shape[-2:]
    length = max(len(clip) for clip in clips)
    cells = [_hold_last_frame(fit_image(clip.float().cpu(), height, width, "pad"), length) for clip in clips]
    if any(captions):
        cells = _with_captions(cells, [*captions, *[""] * (len(clips) - len(captions))])
    columns = min(columns, len(cells))
    blank = torch.ones_like(cells[0])
    cells += [blank] * (-len(cells) % columns)
    padded = F.pad(torch.stack(cells), (0, _GAP, 0, _GAP), value=1.0)
    return rearrange(padded, "(r c) t k h w -> t k (r h) (c w)", c=columns)[..., :-_GAP, :-_GAP]


def film_strip(clip: Tensor, frames: Sequence[int], head: Tensor | None = None) -> Tensor:
    """Chosen frames of a clip (T, 3, H, W) in a row, as a clip of one frame (1, 3, H, W'); -1 is the last.

    A picture `head` (1, 3, H, W) of any size goes before them.
    """
    cells = pick_frames(clip, frames).float().cpu()
    if head is not None:
        cells = torch.cat([fit_image(head.float().cpu(), *clip.shape[-2:], "pad"), cells])
    row = F.pad(cells, (0, _GAP), value=1.0)
    return rearrange(row, "t k h w -> 1 k h (t w)")[..., :-_GAP]


def pick_frames(clip: Tensor, frames: Sequence[int]) -> Tensor:
    """The frames with these numbers of a clip (T, ...); -1 is the last. Raises `InputError` for numbers that it lacks."""
    if not frames:
        raise InputError("frames names none; name at least one, such as 0 1 2 3 -1")
    for number in frames:
        if not -len(clip) <= number < len(clip):
            raise InputError(f"frames has {number}, but a clip has {len(clip)}; allowed: {-len(clip)} to {len(clip) - 1}")
    return clip[list(frames)]


def _hold_last_frame(clip: Tensor, length: int) -> Tensor:
    return torch.cat([clip, clip[-1:].expand(length - len(clip), -1, -1, -1)])


def _with_captions(cells: list[Tensor], captions: Sequence[str]) -> list[Tensor]:
    """The cells, each below a bar with its wrapped caption; all bars have the height of the highest."""
    height, width = cells[0].shape[-2:]
    size = max(_SMALLEST_TEXT, height // 14)
    fonts = [choose_font(caption, size).font for caption in captions]
    texts = [_wrapped(caption, font, width - _GAP) for caption, font in zip(captions, fonts, strict=True)]
    bar_height = max(_height(text, font) for text, font in zip(texts, fonts, strict=True))
    bar_height += bar_height % 2  # videos have even sides
    return [
        torch.cat([_bar(text, font, bar_height, width).expand(len(cell), -1, -1, -1), cell], dim=2)
        for cell, text, font in zip(cells, texts, fonts, strict=True)
    ]


def _height(text: str, font: ImageFont.FreeTypeFont) -> int:
    """The height of a bar with this text. Some fonts have lines higher than their size, so it is measured."""
    _, _, _, bottom = ImageDraw.Draw(Image.new("1", (1, 1))).multiline_textbbox((0, 0), text, font, spacing=_SPACING)
    return max((font.size + _GAP) * (text.count("\n") + 1), math.ceil(bottom) + 1)


def _bar(text: str, font: ImageFont.FreeTypeFont, height: int, width: int) -> Tensor:
    bar = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(bar).multiline_text((_GAP // 2, 0), text, "black", font, spacing=_SPACING)
    return from_uint8(torch.from_numpy(np.array(bar)).permute(2, 0, 1))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in lines of `width` pixels, broken between words. A word that is too long, as in Chinese, is broken within."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += _pieces(word, font, width)
    return "\n".join(lines).strip()


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    pieces = [word[0]]
    for letter in word[1:]:
        if font.getlength(pieces[-1] + letter) <= width:
            pieces[-1] += letter
        else:
            pieces.append(letter)
    return pieces
