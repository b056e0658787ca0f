"""Finished stages of chains on disk, from which a stopped chain is resumed.

A folder holds a file of frames and a picture for each stage, and a manifest that describes them. Files are named by the key
of what made them, so a stage with other settings replaces nothing. Several processes may use a folder at once. This module
reads, writes and deletes only files with names of its own.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from ..common.checks import InputError, shown
from ..common.files import atomic, json_text, write_text
from ..common.json_files import parse_object, read_object
from ..weights.tensor_files import DamagedTensor, LazyTensors, read_metadata, write_tensors

MANIFEST = "manifest.json"
_FORMAT, _VERSION = "dreamvideo chain", 1
_KEY_DIGITS = 12
_RECORD, _FRAMES = "stage", "frames"
_STAGE = re.compile(rf"stage_(\d{{3}})_([0-9a-f]{{{_KEY_DIGITS}}})\.safetensors")
_KEY = re.compile("[0-9a-f]{12,128}")
# The types of an entry's fields in the manifest; an entry may lack all but the first three.
_FIELDS = {"number": int, "key": str, "strip": str, "sentence": str, "seed": int, "sampling": dict, "model": str}
_NEEDED = ("number", "key", "strip")
_ELSEWHERE = "Move it away, or give the chain another folder; nothing in it was changed."

_LOCK, _LOCK_SECONDS = ".lock", 30
# Temporary files of killed processes. Whoever holds the lock may delete them: nobody else is writing. Older versions, which
# put the process id into their names, had no lock, so theirs must be old as well.
_LEFTOVER = re.compile(r"\.(?:stage_\d{3}_[0-9a-f]{12}|manifest)\.(?:[0-9a-f]{32}|(?P<old>\d{1,10}))\.(?:safetensors|png|json)")
_OLD_SECONDS = 6 * 3600

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


class StageStore:
    """The stages in `folder`, which is created with the first one.

    `limit`, in bytes, makes it a temporary store: its oldest stages are deleted to make room. Raises `InputError` for a
    folder that cannot be used, and for a manifest that is damaged, of another version, or does not describe its files.
    """

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder, self.limit = folder, limit
        with self._explained("no stage can be kept there"):
            existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if not existing.is_dir():
                advice = "give another name" if limit is None else "move it away"
                raise InputError(f"the stages' folder is {str(folder)!r}, but {str(existing)!r} is a file; {advice}")
            if not os.access(existing, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it is read-only")
            self._read_manifest()

    def find(self, number: int, key: str) -> Tensor | None:
        """The frames (T, H, W, 3) that stage `number` has under `key`, or None if there are none, or damaged ones."""
        path = self._path(number, key)
        with self._explained(f"stage {number} could not be looked for"):
            if path.is_symlink() or not path.is_file():
                return None
            with self._locked():
                return self._read(path, key)

    def keep(self, number: int, key: str, frames: Tensor, strip: Image.Image, record: Mapping[str, object]) -> Path:
        """Write a stage with its frames unchanged; `record` tells the user what made it. Returns the file's path."""
        path = self._path(number, key)
        entry = {"number": number, **record, "key": key, "strip": path.with_suffix(".png").name}
        if not _is_entry(path.name, entry):
            raise InputError(f"stage {number} cannot be kept: its record, {shown(record)}, could not be read again")
        with self._explained(f"stage {number} could not be kept"), self._locked():
            manifest = self._read_manifest() | {path.name: entry}
            write_tensors(path, {_FRAMES: frames}, {_RECORD: json.dumps(entry)})
            with atomic(path.with_suffix(".png")) as temporary:
                strip.save(temporary)
            self._write_manifest(self._within_limit(manifest, path.name))
        return path

    def _path(self, number: int, key: str) -> Path:
        name = f"stage_{number:03d}_{key[:_KEY_DIGITS]}.safetensors"
        if not _STAGE.fullmatch(name) or not _KEY.fullmatch(key):
            raise InputError(f"stage {number} with the key {shown(key)} has no name; allowed: 0 to 999, hexadecimal digits")
        return self.folder / name

    def _read(self, path: Path, key: str) -> Tensor | None:
        """The frames in a file. A killed process may have left it out of the manifest: then its entry is added."""
        try:
            record = parse_object(read_metadata(path)[_RECORD], f"{path.name}: the record")
            if record.get("key") != key or not _is_entry(path.name, record):
                return None
            tensors = LazyTensors.of_files([path])
            frames = tensors[_FRAMES].clone()  # Windows cannot replace or delete a file that is memory-mapped
            tensors.release()
        except (DamagedTensor, SafetensorError, OSError, KeyError, InputError):
            return None
        if frames.ndim != 4 or frames.shape[-1] != 3 or not frames.is_floating_point():
            return None
        manifest = self._read_manifest()
        if path.name not in manifest:
            self._write_manifest(manifest | {path.name: record})
        elif manifest[path.name] != record:
            raise InputError(f"{self.folder / MANIFEST} was edited: it is not what {path.name} says. {_ELSEWHERE}")
        return frames

    def _within_limit(self, manifest: dict[str, dict], newest: str) -> dict[str, dict]:
        """Delete the oldest stages beyond the limit, but never `newest`; returns the manifest of the others."""
        if self.limit is None:
            return manifest
        files = [path.name for path in self.folder.iterdir() if _STAGE.fullmatch(path.name)]
        oldest_first = [name for name in files if name not in manifest] + [name for name in manifest if name in files]
        sizes = {name: sum(file.lstat().st_size for file in self._files(name)) for name in oldest_first}
        for name in oldest_first:
            if sum(sizes.values()) <= self.limit:
                break
            if name != newest and self._delete(name):
                del sizes[name]
        return {name: entry for name, entry in manifest.items() if name in sizes}

    def _files(self, name: str) -> list[Path]:
        """The existing files of a stage."""
        path = self.folder / name
        return [file for file in (path, path.with_suffix(".png")) if file.is_symlink() or file.exists()]

    def _delete(self, name: str) -> bool:
        """Delete a stage; False if that fails, as on Windows while another program has a file open."""
        try:
            for file in self._files(name):
                file.unlink()
        except OSError:
            return False
        return True

    def _read_manifest(self) -> dict[str, dict]:
        path = self.folder / MANIFEST
        if not path.is_file():
            return {}
        table = read_object(path, "a chain's manifest", advice=_ELSEWHERE)
        found = table.get("format"), table.get("version")
        if found != (_FORMAT, _VERSION):
            kind, version = map(shown, found)
            raise InputError(f"{path} is {kind}, version {version}; this pack has version {_VERSION}. {_ELSEWHERE}")
        stages = table.get("stages")
        if not isinstance(stages, dict):
            raise InputError(f"{path} cannot be read as a chain's manifest: it has no table of stages. {_ELSEWHERE}")
        for name, entry in stages.items():
            if not _is_entry(name, entry):
                raise InputError(f"{path} cannot be read as a chain's manifest: {shown(name)} in it is no stage. {_ELSEWHERE}")
        return stages

    def _write_manifest(self, stages: dict[str, dict]) -> None:
        table = {"format": _FORMAT, "version": _VERSION, "stages": stages}
        write_text(self.folder / MANIFEST, json_text(table, indent=2))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Create the folder, lock it against other processes, and delete what killed ones left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _LOCK
        if path.is_symlink():
            raise InputError(f"{path} is a link, not the lock of this folder. {_ELSEWHERE}")
        lock = FileLock(path, timeout=_LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{path} has been locked by another process for {_LOCK_SECONDS} s. End the other ComfyUI that uses this "
                "folder, or wait for it; the same chain goes on from there."
            ) from None
        except NotImplementedError:  # a file system without locks
            yield
            return
        try:
            self._clean_up()
            yield
        finally:
            lock.release()

    def _clean_up(self) -> None:
        for path in self.folder.iterdir():
            leftover = _LEFTOVER.fullmatch(path.name)
            with suppress(OSError):  # another program has it open: it is deleted next time
                if leftover and (not leftover["old"] or time.time() - path.lstat().st_mtime > _OLD_SECONDS):
                    path.unlink()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the system's errors into `InputError`s; `what` says what has failed."""
        try:
            yield
        except OSError as error:
            failure, advice = _explain(error)
            text = f"the folder {str(self.folder)!r} {failure}"
            if self.limit is None:
                text = f"{text}: {what}. {self._describe_kept()} {advice}, and the same chain goes on from there."
            raise InputError(text) from error

    def _describe_kept(self) -> str:
        """A sentence on the stages that are safe."""
        try:
            kept = sum(1 for name in self._read_manifest() if self._files(name))
        except (InputError, OSError):
            kept = 0
        if not kept:
            return "Nothing is kept there yet."
        return f"{kept} stages are kept there and whole." if kept > 1 else "1 stage is kept there and whole."


def _explain(error: OSError) -> tuple[str, str]:
    """What is wrong with the folder, and what to do."""
    words = error.strerror or str(error)
    if error.errno in _FULL:
        return f"is full ({words})", "Make room there"
    if error.errno in _FORBIDDEN:
        return f"cannot be written to ({words})", "Let ComfyUI write there"
    return f"cannot be used ({words})", "Check that disk or folder"


def _is_entry(name: str, entry: object) -> bool:
    """Whether `entry` is a valid entry of the manifest for the file `name`."""
    stage = _STAGE.fullmatch(name)
    if not stage or not isinstance(entry, dict) or not all(field in entry for field in _NEEDED):
        return False
    if not all(isinstance(entry[field], kind) for field, kind in _FIELDS.items() if field in entry):
        return False
    names = entry["number"], entry["key"][:_KEY_DIGITS], entry["strip"]
    return names == (int(stage[1]), stage[2], Path(name).with_suffix(".png").name) and bool(_KEY.fullmatch(entry["key"]))
