"""The outputs of a run: the clip among the saved files, and a contact sheet of its frames."""

from pathlib import Path

import av
from PIL import Image, ImageSequence

VIDEOS = {".mp4", ".webm", ".mov", ".mkv"}
PICTURES = {".webp", ".gif", ".png", ".jpg", ".jpeg"}
TILE = 256
GAP = 2


def find_clip(files: list[Path]) -> Path | None:
    """The first video or animation."""
    return next((file for file in files if _is_clip(file)), None)


def read_frames(file: Path) -> list[Image.Image]:
    """Every frame of a video, an animation or a still picture."""
    if file.suffix.lower() in VIDEOS:
        with av.open(str(file)) as container:
            return [frame.to_image() for frame in container.decode(video=0)]
    with Image.open(file) as image:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]


def write_contact_sheet(files: list[Path], folder: Path) -> Path | None:
    """Write the clip's frames, or without a clip all stills, as one PNG in `folder`; returns its path."""
    clip = find_clip(files)
    sources = [clip] if clip else [file for file in files if file.suffix.lower() in PICTURES]
    if not sources:
        return None
    sheet = contact_sheet([frame for source in sources for frame in read_frames(source)])
    path = folder / f"{sources[0].stem.rstrip('_')}.contact-sheet.png"
    sheet.save(path)
    return path


def contact_sheet(frames: list[Image.Image]) -> Image.Image:
    """A grid of frames, row by row. All get the first frame's size, at most 256 pixels a side."""
    width, height = _tile_size(frames[0])
    columns = min(len(frames), 4 if len(frames) <= 16 else 8)
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        tile = frame if frame.size == (width, height) else frame.resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (column * (width + GAP), row * (height + GAP)))
    return sheet


def _tile_size(frame: Image.Image) -> tuple[int, int]:
    scale = min(1.0, TILE / max(frame.size))
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))


def _is_clip(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix in VIDEOS:
        return True
    if suffix not in PICTURES:
        return False
    with Image.open(file) as image:
        return getattr(image, "n_frames", 1) > 1
