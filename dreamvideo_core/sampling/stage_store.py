"""Finished stages of chains on disk: what a stopped chain goes on from.

A folder holds a file of frames and a strip to look at for each stage, and a manifest that says what they are. Files are
named by what made them, so a stage that is made otherwise lies beside the one before and replaces nothing. Several processes
may use a folder at once. Of what lies in it, only names that this module gives are read, written or deleted.
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
# What an entry of the manifest may hold, and of which type; the first three are always there.
_FIELDS = {"number": int, "key": str, "strip": str, "sentence": str, "seed": int, "sampling": dict, "model": str}
_NEEDED = ("number", "key", "strip")
_ELSEWHERE = "Move it away, or give the chain another folder; nothing in it was changed."

_LOCK, _LOCK_SECONDS = ".lock", 30
# Files that a killed process was writing. Whoever holds the lock knows that nobody is; older versions, which named them by the
# number of their process, had no lock.
_LEFTOVER = re.compile(r"\.(?:stage_\d{3}_[0-9a-f]{12}|manifest)\.(?:[0-9a-f]{32}|(?P<old>\d{1,10}))\.(?:safetensors|png|json)")
_OLD_SECONDS = 6 * 3600

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)


class StageStore:
    """The stages in `folder`, which is made when the first is kept.

    With `limit`, a number of bytes, the store is a temporary one that nobody named: the oldest stages make room for new ones.
    Raises `InputError` for a folder that cannot be used, or whose manifest is damaged, of another version, or not that of its
    files.
    """

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder, self.limit = folder, limit
        with self._in_words("no stage can be kept there"):
            there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if not there.is_dir():
                advice = "give another name" if limit is None else "move it away"
                raise InputError(f"the stages' folder is {str(folder)!r}, but {str(there)!r} is a file; {advice}")
            if not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it is read-only")
            self._read_manifest()

    def find(self, number: int, key: str) -> Tensor | None:
        """The frames of stage `number` as they were kept under `key`, or None: not kept, or damaged since."""
        path = self._path(number, key)
        with self._in_words(f"stage {number} could not be looked for"):
            if path.is_symlink() or not path.is_file():
                return None
            with self._alone():
                return self._read(path, key)

    def keep(self, number: int, key: str, frames: Tensor, strip: Image.Image, record: Mapping[str, object]) -> Path:
        """Write a stage, its frames exactly; `record` says for a person what made it."""
        path = self._path(number, key)
        entry = {"number": number, **record, "key": key, "strip": path.with_suffix(".png").name}
        if not _is_entry(path.name, entry):
            raise InputError(f"stage {number} cannot be kept: its record, {shown(record)}, could not be read again")
        with self._in_words(f"stage {number} could not be kept"), self._alone():
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
        """The frames in a file that is what the manifest says. A file that a killed process did not enter is entered now."""
        try:
            record = parse_object(read_metadata(path)[_RECORD], f"{path.name}: the record")
            if record.get("key") != key or not _is_entry(path.name, record):
                return None
            tensors = LazyTensors.of_files([path])
            frames = tensors[_FRAMES].clone()  # else the file is mapped, and Windows lets nobody replace or delete it
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
        """The manifest without the oldest stages beyond the limit, whose files are deleted; never without `newest`."""
        if self.limit is None:
            return manifest
        there = [path.name for path in self.folder.iterdir() if _STAGE.fullmatch(path.name)]
        oldest_first = [name for name in there if name not in manifest] + [name for name in manifest if name in there]
        sizes = {name: sum(file.lstat().st_size for file in self._files(name)) for name in oldest_first}
        for name in oldest_first:
            if sum(sizes.values()) <= self.limit:
                break
            if name != newest and self._delete(name):
                del sizes[name]
        return {name: entry for name, entry in manifest.items() if name in sizes}

    def _files(self, name: str) -> list[Path]:
        """The files of a stage that are there."""
        path = self.folder / name
        return [file for file in (path, path.with_suffix(".png")) if file.is_symlink() or file.exists()]

    def _delete(self, name: str) -> bool:
        """Whether the stage could be deleted: on Windows a file stays as long as another program has it open."""
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
    def _alone(self) -> Iterator[None]:
        """While no other process reads or writes the folder, which is made; what killed ones left is deleted."""
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
            with suppress(OSError):  # another program looks into it: the next time, then
                if leftover and (not leftover["old"] or time.time() - path.lstat().st_mtime > _OLD_SECONDS):
                    path.unlink()

    @contextmanager
    def _in_words(self, what: str) -> Iterator[None]:
        """Failures of the system as errors for a person; `what` has failed."""
        try:
            yield
        except OSError as error:
            failure, advice = _in_sentences(error)
            text = f"the folder {str(self.folder)!r} {failure}"
            if self.limit is None:
                text = f"{text}: {what}. {self._kept()} {advice}, and the same chain goes on from there."
            raise InputError(text) from error

    def _kept(self) -> str:
        """What there is in a folder that fails now."""
        try:
            kept = sum(1 for name in self._read_manifest() if self._files(name))
        except (InputError, OSError):
            kept = 0
        if not kept:
            return "Nothing is kept there yet."
        return f"{kept} stages are kept there and whole." if kept > 1 else "1 stage is kept there and whole."


def _in_sentences(error: OSError) -> tuple[str, str]:
    """What is wrong with a folder, and what to do."""
    words = error.strerror or str(error)
    if error.errno in _FULL:
        return f"is full ({words})", "Make room there"
    if error.errno in _FORBIDDEN:
        return f"cannot be written to ({words})", "Let ComfyUI write there"
    return f"cannot be used ({words})", "Check that disk or folder"


def _is_entry(name: str, entry: object) -> bool:
    """Whether this is what the manifest says of the stage in file `name`."""
    stage = _STAGE.fullmatch(name)
    if not stage or not isinstance(entry, dict) or not all(field in entry for field in _NEEDED):
        return False
    if not all(isinstance(entry[field], kind) for field, kind in _FIELDS.items() if field in entry):
        return False
    said = entry["number"], entry["key"][:_KEY_DIGITS], entry["strip"]
    return said == (int(stage[1]), stage[2], Path(name).with_suffix(".png").name) and bool(_KEY.fullmatch(entry["key"]))
