"""A page on which a person rates clips without knowing which model made which: the paper's user study (Table 3).

The page holds everything, clips as WebP among it, and asks no network. What it must not tell is in the key, a file of its own.
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
class Shown:
    """A clip on the sheet: the folder stands for the model, the clip's own for the text and the picture."""

    model: str
    clip: str
    path: Path


def shuffled_clips(folders: Sequence[Path], captions: Mapping[str, str], clips: int | None, seed: int) -> list[Shown]:
    """Every model's clips of the same texts, in an order that `seed` decides; `clips` takes so many of the texts, drawn alike.

    Raises `InputError` for a folder without clips, and where a clip lacks a model or a caption, or a caption its clips.
    """
    models = open_sets(folders, "folder")
    names = check_pairs({"captions": captions, **{f"folder {model.label}": model.paths for model in models}})
    generator = random.Random(seed)
    if clips is not None:
        check_number("clips", clips, 1, len(names))
        names = sorted(generator.sample(names, clips))
    shown = [Shown(model.label, name, model.paths[name]) for model in models for name in names]
    generator.shuffle(shown)
    return shown


def find_pictures(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The pictures that clips of these names were made from; raises `InputError` where one is not in `folder`."""
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
    shown: Sequence[Shown],
    captions: Mapping[str, str],
    pictures: Mapping[str, Path],
    fps: float,
    on_clip: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the page and its key; `on_clip` hears how many clips are in it.

    `pictures` are by the clip's name, and may be none; `fps` is of clips that do not say how fast they are.
    """
    names = sorted({clip.clip for clip in shown})
    entries = []
    for number, clip in enumerate(shown, 1):
        picture = names.index(clip.clip) if clip.clip in pictures else None
        made = read_clip(clip.path, fps)
        # Made anew, for a file's own metadata may name its model.
        address = inline_clip(made.frames, made.milliseconds)
        entries.append({"clip": address, "picture": picture, "caption": captions[clip.clip]})
        on_clip(number)
    content = {
        "clips": entries,
        "pictures": [inline_picture(read_image(pictures[name], "images")[0]) for name in names] if pictures else [],
        "criteria": list(CRITERIA),
        "lowest": LOWEST,
        "highest": HIGHEST,
    }
    sheet = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    hidden = {str(number): {"model": clip.model, "clip": clip.clip} for number, clip in enumerate(shown, 1)}
    write_text(key, json_text({"sheet": sheet, "clips": hidden}, indent=2))
    write_text(output, _page({"sheet": sheet, **content}))


def _page(content: dict) -> str:
    # Inside a script some tags would end or change it; JSON may write their bracket as an escape.
    return _PAGE.read_text(encoding="utf-8").replace("SHEET_CONTENT", json.dumps(content).replace("<", "\\u003c"))
