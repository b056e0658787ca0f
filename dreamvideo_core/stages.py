"""Finished stages of chains on disk: what a stopped chain goes on from.

A folder holds a file of frames and a strip to look at for each stage, and a manifest that says what they are. Files are
named by what made them, so a stage that is made otherwise lies beside the one before and replaces nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from .checks import InputError
from .files import atomic, write_text
from .tensor_files import DamagedTensor, LazyTensors, read_metadata, write_tensors

MANIFEST = "manifest.json"
_FORMAT, _VERSION = "dreamvideo chain", 1
_KEY_DIGITS = 12
_RECORD, _FRAMES = "stage", "frames"
_ELSEWHERE = "Move it away, or give the chain another folder; nothing in it was changed."


class StageStore:
    """The stages in `folder`, which is made when the first is kept.

    With `limit`, a number of bytes, the oldest stages make room for new ones. Raises `InputError` for a folder whose
    manifest is damaged, of another version, or not that of its files.
    """

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder, self.limit = folder, limit
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"the stages' folder is {str(folder)!r}, but {str(there)!r} is a file; give another name")
        if not os.access(there, os.W_OK):
            raise InputError(
                f"the stages' folder is {str(folder)!r}, and {str(there)!r} cannot be written to; give another name"
            )
        self._read_manifest()

    def find(self, number: int, key: str) -> Tensor | None:
        """The frames of stage `number` as they were kept under `key`, or None: not kept, or damaged since."""
        path = self._path(number, key)
        entry = self._read_manifest().get(path.name)
        if entry is None or entry.get("key") != key or not path.is_file():
            return None
        try:
            if json.loads(read_metadata(path)[_RECORD]) != entry:
                raise InputError(f"{self.folder / MANIFEST} was edited: it is not what {path.name} says. {_ELSEWHERE}")
            return LazyTensors.of_files([path])[_FRAMES]
        except (DamagedTensor, SafetensorError, OSError, KeyError, json.JSONDecodeError):
            return None

    def keep(self, number: int, key: str, frames: Tensor, strip: Image.Image, record: Mapping[str, object]) -> Path:
        """Write a stage, its frames exactly; `record` says for a person what made it."""
        path = self._path(number, key)
        entry = {"number": number, **record, "key": key, "strip": path.with_suffix(".png").name}
        manifest = self._read_manifest() | {path.name: entry}
        write_tensors(path, {_FRAMES: frames}, {_RECORD: json.dumps(entry)})
        with atomic(path.with_suffix(".png")) as temporary:
            strip.save(temporary)
        self._write_manifest(self._within_limit(manifest, path.name))
        return path

    def _path(self, number: int, key: str) -> Path:
        return self.folder / f"stage_{number:03d}_{key[:_KEY_DIGITS]}.safetensors"

    def _within_limit(self, manifest: dict[str, dict], newest: str) -> dict[str, dict]:
        """The manifest without the oldest stages beyond the limit, whose files are deleted; never without `newest`."""
        if self.limit is None:
            return manifest
        sizes = {name: (self.folder / name).stat().st_size for name in manifest if (self.folder / name).is_file()}
        for name in [name for name in manifest if name != newest]:
            if sum(sizes.values()) <= self.limit:
                break
            for file in (self.folder / name, (self.folder / name).with_suffix(".png")):
                file.unlink(missing_ok=True)
            sizes.pop(name, None)
            del manifest[name]
        return manifest

    def _read_manifest(self) -> dict[str, dict]:
        path = self.folder / MANIFEST
        if not path.is_file():
            return {}
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            found, stages = (table["format"], table["version"]), dict(table["stages"])
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InputError(f"{path} cannot be read as a chain's manifest ({error}). {_ELSEWHERE}") from error
        if found != (_FORMAT, _VERSION):
            raise InputError(f"{path} is {found[0]!r}, version {found[1]!r}; this pack has version {_VERSION}. {_ELSEWHERE}")
        return stages

    def _write_manifest(self, stages: dict[str, dict]) -> None:
        table = {"format": _FORMAT, "version": _VERSION, "stages": stages}
        write_text(self.folder / MANIFEST, json.dumps(table, indent=2, ensure_ascii=False) + "\n")
