"""Real video files of the small world, with captions beside them."""

from __future__ import annotations

from pathlib import Path

import torch

from dreamvideo_core.media.video import save_clip
from dreamvideo_core.sprites import render_batch, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

SIZE = 32


def write_clips(folder: Path, count: int = 6, frames: int = 9) -> Path:
    """clip0.mp4 with clip0.txt and so on, 32 x 40 pixels, every sprite on its way to the right."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        clip = sample_clip(seeded("train", 7, number))
        clip = type(clip)(clip.scene, clip.actor, "right")
        save_clip(folder / f"clip{number}.mp4", render_batch([clip], num_frames=frames, height=SIZE, width=SIZE + 8)[0], fps=8)
        (folder / f"clip{number}.txt").write_text(sentence(clip) + "\n")
    return folder


def write_odd_ones(folder: Path) -> None:
    """A broken clip, a short one, a still one without a caption, and one with a cut."""
    (folder / "broken.mp4").write_bytes(b"no video" * 50)
    dark, bright = -torch.ones(9, 3, SIZE, SIZE), torch.ones(9, 3, SIZE, SIZE)
    save_clip(folder / "short.mp4", dark[:2], fps=8)
    save_clip(folder / "still.mp4", dark, fps=8)
    save_clip(folder / "cut.mp4", torch.cat([dark[:4], bright[:5]]), fps=8)
    for name in ("broken", "short", "cut"):
        (folder / f"{name}.txt").write_text(f"a {name} clip")
