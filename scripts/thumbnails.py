"""Makes the thumbnails of ComfyUI's template browser from the workflows' own clips.

python3 scripts/comfyui.py exec python scripts/thumbnails.py [WORKFLOW ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from comfy_host import releases, runner
from comfy_host.outputs import read_frames
from comfy_host.paths import REPOSITORY
from PIL import Image, ImageOps

from dreamvideo_core.common.files import atomic

SIDE = 512
WIDE = 1.5  # of a larger aspect ratio, two frames are shown, one below the other


def main(names: list[str]) -> None:
    folder = REPOSITORY / "workflows"
    for workflow in [folder / f"{name}.json" for name in names] or sorted(folder.glob("*.json")):
        with tempfile.TemporaryDirectory() as output:
            report = runner.run(releases.locate(), workflow, [], Path(output))
            frames = read_frames(Path(report.clip))
        with atomic(workflow.with_suffix(".jpg")) as temporary:
            thumbnail(frames).save(temporary, "JPEG", quality=88)
        print(workflow.with_suffix(".jpg"))


def thumbnail(frames: list[Image.Image]) -> Image.Image:
    """Four frames of a clip in a square, or the first and the last of a wide one."""
    columns = 1 if frames[0].width > WIDE * frames[0].height else 2
    count = 2 * columns
    chosen = [frames[round(k * (len(frames) - 1) / (count - 1))] for k in range(count)]
    sheet = Image.new("RGB", (SIDE, SIDE), "white")
    size = (SIDE // columns, SIDE // 2)
    for number, frame in enumerate(chosen):
        cell = ImageOps.pad(frame.convert("RGB"), size, Image.Resampling.NEAREST, "white")
        sheet.paste(cell, (number % columns * size[0], number // columns * size[1]))
    return sheet


if __name__ == "__main__":
    main(sys.argv[1:])
