"""The clips of a user's data set by name, file and caption. No video is opened here.

A data set is a folder of videos with captions beside them (clip.mp4, clip.txt), a table (.csv or .jsonl) with the columns
`path` and `caption`, or WebDataset shards (.tar files with the members KEY.mp4 and KEY.txt or KEY.json).
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ...common.checks import InputError
from ...common.files import in_order
from ...common.json_files import MAX_BYTES, parse_object
from ...common.tables import is_table, read_rows
from ...common.text_files import decode_text, read_text
from ...media.clip_files import VIDEOS

_ENDINGS = (*VIDEOS, ".gif")  # FFmpeg decodes a .gif as any video
_CAPTION_KEYS = ("caption", "text")  # in a shard's .json


@dataclass(frozen=True)
class ClipFile:
    """One video of `size` bytes and its caption, "" if it has none. In a shard it begins at `offset`."""

    name: str
    path: Path
    caption: str
    size: int
    offset: int | None = None

    def open(self) -> BinaryIO:
        """The video's bytes; raises OSError if the file is gone."""
        if self.offset is None:
            return self.path.open("rb")
        with self.path.open("rb") as shard:
            shard.seek(self.offset)
            return io.BytesIO(shard.read(self.size))


def list_clips(path: str | Path) -> list[ClipFile]:
    """All clips of a data set, always in the same order. Raises `InputError` for no data set, and for one without videos."""
    path = Path(path)
    if path.is_dir():
        clips = [clip for shard in in_order(path.glob("*.tar")) for clip in _in_shard(shard)] + _in_folder(path)
    elif is_table(path) and path.is_file():
        clips = _in_table(path)
    elif path.suffix == ".tar" and path.is_file():
        clips = _in_shard(path)
    else:
        what = "which is neither a folder nor a table or shard" if path.exists() else "and there is no such file or folder"
        raise InputError(
            f"data is {str(path)!r}, {what}; give a folder of videos with captions beside them (clip.mp4, clip.txt), a .csv "
            "or .jsonl of paths and captions, a .tar shard or a folder of shards"
        )
    if not clips:
        raise InputError(f"data is {str(path)!r}, in which there is no video; allowed: {', '.join(_ENDINGS)}")
    return clips


def list_digest(clips: Iterable[ClipFile]) -> str:
    """A hash of the clips' names, sizes and captions, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=6)
    for clip in clips:
        digest.update(json.dumps([clip.name, clip.size, clip.caption]).encode())
    return digest.hexdigest()


def _is_video(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _ENDINGS and not PurePosixPath(name).name.startswith(".")


def _in_folder(folder: Path) -> list[ClipFile]:
    paths = in_order(p for p in folder.rglob("*") if _is_video(p.name) and p.is_file())
    return [_clip_file(p.relative_to(folder).as_posix(), p, _caption_beside(p)) for p in paths]


def _caption_beside(video: Path) -> str:
    path = video.with_suffix(".txt")
    return _one_line(read_text(path, "a caption")) if path.is_file() else ""


def _clip_file(name: str, path: Path, caption: str) -> ClipFile:
    return ClipFile(name, path, caption, path.stat().st_size)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _in_table(table: Path) -> list[ClipFile]:
    """The clips of a table; relative paths start at its folder."""
    rows = read_rows(table, "data")
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("path"), str) or not row["path"]:
            raise InputError(f"{table.name}, row {number} has {sorted(map(str, row))}; it needs `path`, and `caption`")
    paths = [_resolve(table.parent, row["path"]) for row in rows]
    missing = [row["path"] for row, path in zip(rows, paths, strict=True) if not path.is_file()]
    if missing:
        raise InputError(
            f"{table.name} names {len(missing)} files that are not there, {missing[0]!r} for one; paths are relative to the "
            "table's folder"
        )
    captions = [_one_line(str(row.get("caption") or "")) for row in rows]
    return [_clip_file(row["path"], path, caption) for row, path, caption in zip(rows, paths, captions, strict=True)]


def _resolve(folder: Path, text: str) -> Path:
    path = folder / text
    return path if path.is_file() else folder / text.replace("\\", "/")  # a table from Windows


def _in_shard(shard: Path) -> list[ClipFile]:
    try:
        with tarfile.open(shard, "r:") as tar:  # uncompressed only, so that a video can be read at its offset
            members = [m for m in tar if m.isfile()]
            captions = {_sample_key(m.name): _caption(tar, m, shard) for m in members if m.name.endswith((".txt", ".json"))}
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{shard} is no readable .tar file without compression ({error}); get or make it again") from error
    return [
        ClipFile(f"{shard.name}/{m.name}", shard, captions.get(_sample_key(m.name), ""), m.size, m.offset_data)
        for m in members
        if _is_video(m.name)
    ]


def _sample_key(member: str) -> str:
    """WebDataset's key: the path up to the first dot of the file's name."""
    path = PurePosixPath(member)
    return str(path.with_name(path.name.partition(".")[0]))


def _caption(tar: tarfile.TarFile, member: tarfile.TarInfo, shard: Path) -> str:
    text = decode_text(tar.extractfile(member).read(MAX_BYTES), f"the caption {shard.name}/{member.name}")
    if member.name.endswith(".txt"):
        return _one_line(text)
    table = parse_object(text, f"{shard.name}/{member.name}")
    return _one_line(str(next((table[key] for key in _CAPTION_KEYS if table.get(key)), "")))
