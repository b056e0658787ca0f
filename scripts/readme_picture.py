"""Draws the README's picture: one image and four sentences, as the shipped model makes them today.

python3 scripts/comfyui.py exec python scripts/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from einops import repeat
from PIL import Image, ImageDraw

from dreamvideo_core.files import atomic
from dreamvideo_core.images import contact_sheet, fit_image, read_image
from dreamvideo_core.pipeline import Pipeline

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "pictures" / "dreamvideo_two_sprites.png"
OUTPUT = ROOT / "docs" / "one_picture_four_sentences.png"
SENTENCES = (
    "the red circle moves right",
    "the red circle moves up",
    "the blue square moves left",
    "the blue square grows",
)
_CELL = 96
_CAPTION = 16


def main() -> None:
    pipeline = Pipeline.load()
    size = pipeline.config.sampling.height
    image = fit_image(read_image(IMAGE), size, size)
    clips = pipeline(list(SENTENCES), repeat(image, "1 c h w -> b c h w", b=len(SENTENCES)))
    rows = [_row(torch.cat([image, clip]), sentence) for clip, sentence in zip(clips, SENTENCES, strict=True)]
    picture = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), "white")
    for number, row in enumerate(rows):
        picture.paste(row, (0, number * row.height))
    with atomic(OUTPUT) as temporary:
        picture.save(temporary, optimize=True)
    print(OUTPUT)


def _row(frames: torch.Tensor, sentence: str) -> Image.Image:
    """The image, then the clip's frames, under the sentence."""
    frames = fit_image(frames, _CELL, _CELL)
    strip = contact_sheet(frames, columns=len(frames))
    row = Image.new("RGB", (strip.width, strip.height + _CAPTION), "white")
    row.paste(strip, (0, _CAPTION))
    ImageDraw.Draw(row).text((2, 2), f"picture      {sentence}", fill="black")
    return row


if __name__ == "__main__":
    main()
