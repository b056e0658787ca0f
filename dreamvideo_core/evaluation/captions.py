"""Reading the file of captions that belongs to folders of clips."""

from __future__ import annotations

from pathlib import Path

from ..common.checks import InputError
from ..common.tables import is_table, read_rows
from ..media.clip_files import clip_name


def read_captions(path: str | Path, name: str = "captions") -> dict[str, str]:
    """Captions by `clip_name`, from a .csv or .jsonl with the columns `path` and `caption`.

    `name` is the input that names the file. Raises `InputError` for another kind of file, a row without path or caption,
    and two captions of one clip.
    """
    path = Path(path)
    if not is_table(path) or not path.is_file():
        what = "there is no such file" if not path.is_file() else "its ending is not known"
        raise InputError(f"{name} is {str(path)!r}, and {what}; give a .csv or .jsonl with the columns path and caption")
    captions: dict[str, str] = {}
    for number, row in enumerate(read_rows(path, name), 1):
        clip, caption = (row.get(column) for column in ("path", "caption"))
        if not isinstance(clip, str) or not isinstance(caption, str) or not clip or not caption.strip():
            raise InputError(f"{name} {path.name}, row {number} has no path or no caption; it needs both, as texts")
        clip = clip_name(clip.replace("\\", "/"))
        if clip in captions:
            raise InputError(f"{name} {path.name} has two captions for {clip!r}; keep one")
        captions[clip] = " ".join(caption.split())
    return captions
