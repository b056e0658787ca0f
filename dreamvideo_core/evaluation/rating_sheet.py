"""A page on which people rate clips without knowing their models: the paper's user study (Table 3).

The page is one file with its clips inside, and needs no network. A second file, the key, tells the models.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.checks import InputError, check_number
from ..common.files import json_text, write_text
from ..media.clip_files import read_clip
from ..media.images import read_image
from .clips import check_pairs, open_sets
from .inline import inline_clip, inline_picture
from .rating import CRITERIA, HIGHEST, LOWEST

_PAGE = Path(__file__).with_name("rating_page.html")
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class SheetClip:
    """A clip on the sheet: the model that made it, and the clip's name, by which its caption and picture are found."""

    model: str
    clip: str
    path: Path


def shuffled_clips(folders: Sequence[Path], captions: Mapping[str, str], clips: int | None, seed: int) -> list[SheetClip]:
    """All models' clips of the same captions, shuffled; with `clips`, of so many captions drawn at random.

    Raises `InputError` for a folder without clips, and unless every folder has a clip for every caption and no others.
    """
    models = open_sets(folders, "folder")
    names = check_pairs({"captions": captions, **{f"folder {model.label}": model.paths for model in models}})
    generator = random.Random(seed)
    if clips is not None:
        check_number("clips", clips, 1, len(names))
        names = sorted(generator.sample(names, clips))
    chosen = [SheetClip(model.label, name, model.paths[name]) for model in models for name in names]
    generator.shuffle(chosen)
    return chosen


def find_pictures(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The pictures in `folder` that clips with these names were made from. Raises `InputError` if one is missing."""
    if not folder.is_dir():
        raise InputError(f"images is {str(folder)!r}, which is no folder; give the folder of the pictures")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in _PICTURES}
    missing = sorted(set(names) - set(found))
    if missing:
        raise InputError(
            f"images {str(folder)!r} lacks the pictures of {len(missing)} clips, {missing[0]} for one; give each a picture by "
            f"the clip's name: {', '.join(_PICTURES)}"
        )
    return {name: found[name] for name in names}


def write_sheet(
    output: Path,
    key: Path,
    clips: Sequence[SheetClip],
    captions: Mapping[str, str],
    pictures: Mapping[str, Path],
    fps: float,
    on_clip: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the page and its key; `on_clip` is told how many clips are done.

    `captions` and `pictures` are by the clip's name; there may be no pictures. `fps` is for clips that do not say theirs.
    """
    names = sorted({clip.clip for clip in clips})
    entries = []
    for number, clip in enumerate(clips, 1):
        picture = names.index(clip.clip) if clip.clip in pictures else None
        made = read_clip(clip.path, fps)
        # Encoded again, because a file's metadata may name its model.
        url = inline_clip(made.frames, made.milliseconds)
        entries.append({"clip": url, "picture": picture, "caption": captions[clip.clip]})
        on_clip(number)
    content = {
        "clips": entries,
        "pictures": [inline_picture(read_image(pictures[name], "images")[0]) for name in names] if pictures else [],
        "criteria": list(CRITERIA),
        "lowest": LOWEST,
        "highest": HIGHEST,
    }
    sheet = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    hidden = {str(number): {"model": clip.model, "clip": clip.clip} for number, clip in enumerate(clips, 1)}
    write_text(key, json_text({"sheet": sheet, "clips": hidden}, indent=2))
    write_text(output, _page({"sheet": sheet, **content}))


def _page(content: dict) -> str:
    # A "<" in a caption could end the page's script; JSON allows the escape.
    return _PAGE.read_text(encoding="utf-8").replace("SHEET_CONTENT", json.dumps(content).replace("<", "\\u003c"))
