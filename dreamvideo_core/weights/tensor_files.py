"""Safetensors files larger than memory: tensors are read one at a time on demand, and written one at a time.

Files written here carry a checksum of every tensor in their metadata, which reading checks. An outline is a tensor's type and
shape, as a tensor on the device "meta"; it is known without reading the tensor.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..common.checks import InputError
from ..common.files import atomic

# The types of weights by the names that users give.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# The names of types in a safetensors header.
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
LENGTH_BYTES = 8  # at a file's start, with the length of its header
MAX_HEADER = 32 * 2**20  # bytes; the largest public models have less than one MiB
_RELEASE_BYTES = 2**25  # bytes read from a file between two releases of its memory; opening it again takes time
_ALIGNMENT = 8
_CHECKSUMS = "crc32"  # the metadata's key; its value has _DIGITS hexadecimal digits per tensor, sorted by name
_DIGITS = 8


class DamagedTensor(InputError):
    """A tensor whose checksum differs from what was written."""


class LazyTensor(NamedTuple):
    """A tensor that is loaded on demand, and its outline."""

    load: Callable[[], Tensor]
    outline: Callable[[], Tensor]

    def changed(self, name: str, change: Callable[[str, Tensor], Tensor]) -> LazyTensor:
        return LazyTensor(lambda: change(name, self.load()), lambda: change(name, self.outline()))


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each loaded when it is looked up. `release` closes the files that were opened for that."""

    def __init__(self, lazy: Mapping[str, LazyTensor], release: Callable[[], None] = lambda: None):
        self._lazy, self.release = dict(lazy), release

    @classmethod
    def of_files(cls, paths: Iterable[Path]) -> LazyTensors:
        """All tensors of some safetensors files. Raises SafetensorError or OSError for an unreadable one."""
        files = [_TensorFile(path) for path in paths]
        lazy = {name: file.lazy(name) for file in files for name in file.names()}

        def release() -> None:
            for file in files:
                file.close()

        return cls(lazy, release)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> LazyTensors:
        """`tensors` themselves if they are lazy, else a view of tensors in memory."""
        return tensors if isinstance(tensors, cls) else cls({name: _in_memory(t) for name, t in tensors.items()})

    def outline(self, name: str) -> Tensor:
        """A tensor's type and shape, as a tensor on the device "meta"; nothing is read."""
        return self._lazy[name].outline()

    def renamed(self, new_name: Callable[[str], str | None]) -> LazyTensors:
        """The same tensors by new names; those with the new name None are left out."""
        named = ((new_name(name), lazy) for name, lazy in self._lazy.items())
        return LazyTensors({name: lazy for name, lazy in named if name is not None}, self.release)

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> LazyTensors:
        """`change`, of a name and a tensor, applied to every tensor and every outline on demand."""
        return LazyTensors({name: lazy.changed(name, change) for name, lazy in self._lazy.items()}, self.release)

    def __or__(self, other: LazyTensors) -> LazyTensors:
        def release() -> None:
            self.release()
            other.release()

        return LazyTensors(self._lazy | other._lazy, release)

    def __getitem__(self, name: str) -> Tensor:
        return self._lazy[name].load()

    def __iter__(self):
        return iter(self._lazy)

    def __len__(self) -> int:
        return len(self._lazy)


class _TensorFile:
    """A safetensors file that is opened on demand."""

    def __init__(self, path: Path):
        self._path, self._opened = path, None
        _check_header(path)
        self._checksums = _read_checksums(self._file())

    def names(self) -> list[str]:
        return list(self._file().keys())

    def lazy(self, name: str) -> LazyTensor:
        return LazyTensor(lambda: self.load(name), lambda: self.outline(name))

    def outline(self, name: str) -> Tensor:
        entry = self._file().get_slice(name)
        dtype = _TYPES.get(entry.get_dtype())
        if dtype is None:
            raise InputError(
                f"{self._path.name}: {name!r} is of the type {entry.get_dtype()}; allowed: {', '.join(_TYPES)}. Get the model "
                "in another precision."
            )
        return torch.empty(entry.get_shape(), dtype=dtype, device="meta")

    def load(self, name: str) -> Tensor:
        tensor = self._file().get_tensor(name)
        if name in self._checksums and _checksum(_memory(tensor)) != self._checksums[name]:
            raise DamagedTensor(
                f"{self._path.name}: {name!r} is not what was written into the file (its checksum differs): the file was "
                "damaged later. Copy or download it again."
            )
        return tensor

    def close(self) -> None:
        self._opened = None

    def _file(self):
        if self._opened is None:
            self._opened = safe_open(self._path, "pt")
        return self._opened


def _check_header(path: Path) -> None:
    """Refuse a header that is too long, before it is parsed: that takes many times its size in memory."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER:
        raise SafetensorError(f"the header has {length:,} bytes")


def _checksum(data: memoryview) -> str:
    return f"{zlib.crc32(data):0{_DIGITS}x}"


def _read_checksums(file: safe_open) -> dict[str, str]:
    """The file's checksums by tensor name; none if it comes from another writer."""
    text, names = (file.metadata() or {}).get(_CHECKSUMS, ""), sorted(file.keys())
    if len(text) != _DIGITS * len(names):
        return {}
    return {name: text[_DIGITS * i : _DIGITS * (i + 1)] for i, name in enumerate(names)}


def _in_memory(tensor: Tensor) -> LazyTensor:
    return LazyTensor(lambda: tensor, lambda: torch.empty_like(tensor, device="meta"))


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header."""
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
    on_tensor: Callable[[int, int], None] | None = None,
) -> None:
    """Write a safetensors file atomically, with one tensor in memory at a time; equal tensors give equal bytes.

    With `dtype`, floating-point tensors are cast to it; raises `InputError` for a value that is too large for it.
    `on_tensor` is told the number of bytes written so far, and of all bytes.
    """
    lazy = LazyTensors.of(tensors)
    outlines = {name: lazy.outline(name) for name in lazy}
    dtypes = {name: dtype if dtype and outline.is_floating_point() else outline.dtype for name, outline in outlines.items()}
    entries, total = _header_entries(dtypes, {name: outline.shape for name, outline in outlines.items()})
    checksums = dict.fromkeys(entries, "0" * _DIGITS)
    released = 0
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            file.write(_header(entries, metadata, checksums))
            for name in entries:
                checksums[name] = _write_tensor(file, _cast(name, lazy[name], dtypes[name]))
                written = entries[name]["data_offsets"][1]
                if written - released >= _RELEASE_BYTES:
                    lazy.release()
                    released = written
                if on_tensor:
                    on_tensor(written, total)
            file.seek(0)
            file.write(_header(entries, metadata, checksums))
        lazy.release()  # the target may be one of these files, and Windows replaces no file that is open or mapped


def _write_tensor(file: BinaryIO, tensor: Tensor) -> str:
    """Write a tensor's bytes and return their checksum. A function, so that the caller holds no reference to the tensor."""
    data = _memory(tensor)
    file.write(data)
    return _checksum(data)


def _header_entries(dtypes: dict[str, torch.dtype], shapes: dict[str, torch.Size]) -> tuple[dict[str, dict], int]:
    """The header's entries by name, in the order of the file, and the number of all bytes."""
    entries, total = {}, 0
    # Wide types first, so that every tensor begins at a multiple of its element's size.
    for name in sorted(dtypes, key=lambda name: (-dtypes[name].itemsize, name)):
        size = shapes[name].numel() * dtypes[name].itemsize
        entries[name] = {"dtype": _NAMES[dtypes[name]], "shape": list(shapes[name]), "data_offsets": [total, total + size]}
        total += size
    return entries, total


def _header(entries: dict[str, dict], metadata: Mapping[str, str], checksums: dict[str, str]) -> bytes:
    """The file's bytes before the tensors. Its length does not depend on the checksums, which are known last."""
    digits = "".join(checksums[name] for name in sorted(checksums))
    text = json.dumps({"__metadata__": {**metadata, _CHECKSUMS: digits}, **entries}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.detach().cpu().to(dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not cast.isfinite().all() and tensor.isfinite().all():
        raise InputError(f"{name} has a value of {tensor.abs().max():.3g}, too large for fp16; choose bf16 or fp32")
    return cast


def _memory(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
