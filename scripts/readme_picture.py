"""Generates the README's picture with the shipped model: one image, animated by four sentences.

python3 scripts/comfyui.py exec python scripts/readme_picture.py
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from einops import repeat

from dreamvideo_core.media.grid import clip_grid
from dreamvideo_core.media.images import fit_image, read_image
from dreamvideo_core.media.video import save_clip
from dreamvideo_core.sampling.pipeline import Pipeline

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "pictures" / "dreamvideo_two_sprites.png"
OUTPUT = ROOT / "docs" / "one_picture_four_sentences.webp"
SENTENCES = (
    "the red circle moves right",
    "the red circle moves up",
    "the blue square moves left",
    "the blue square grows",
)
SCALE = 2
FPS = 6


def main() -> None:
    pipeline = Pipeline.load()
    size = pipeline.config.sampling.height
    image = fit_image(read_image(IMAGE), size, size)
    clips = pipeline(list(SENTENCES), repeat(image, "1 c h w -> b c h w", b=len(SENTENCES)))
    cells = [F.interpolate(clip, scale_factor=SCALE) for clip in (image, *clips)]
    save_clip(OUTPUT, clip_grid(cells, ["the picture", *SENTENCES], columns=len(cells)), FPS)


if __name__ == "__main__":
    main()
