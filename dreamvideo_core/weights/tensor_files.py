"""Safetensors files larger than memory: tensors are read one at a time when they are used, and written one at a time.

What is written here carries a checksum of every tensor in the file's metadata, and reading such a tensor checks it. Types and
shapes are known without reading: they are outlines, tensors on the device "meta".
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

# What a person calls the types that weights may have.
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# What types are called in a safetensors header.
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_TYPES = {name: dtype for dtype, name in _NAMES.items()}
LENGTH_BYTES = 8  # at a file's start, which say how long its header is
MAX_HEADER = 32 * 2**20  # that of the largest public models has less than one
_HELD = 2**25  # bytes of a source that are read before it is let go: opening it again takes time
_ALIGNMENT = 8
_CHECKSUMS = "crc32"  # of the tensors in order of their names, _DIGITS hexadecimal digits each
_DIGITS = 8


class DamagedTensor(InputError):
    """A tensor that is not what was written."""


class Source(NamedTuple):
    """Where a tensor comes from: what makes it, and what makes its outline."""

    make: Callable[[], Tensor]
    outline: Callable[[], Tensor]

    def changed(self, name: str, change: Callable[[str, Tensor], Tensor]) -> Source:
        return Source(lambda: change(name, self.make()), lambda: change(name, self.outline()))


class LazyTensors(Mapping[str, Tensor]):
    """Tensors by name, each made when it is asked for. `release` lets go of the files that were opened for it."""

    def __init__(self, sources: Mapping[str, Source], release: Callable[[], None] = lambda: None):
        self._sources, self.release = dict(sources), release

    @classmethod
    def of_files(cls, paths: Iterable[Path]) -> LazyTensors:
        """All tensors of some safetensors files; SafetensorError or OSError for one that cannot be read."""
        files = [_TensorFile(path) for path in paths]
        sources = {name: file.source(name) for file in files for name in file.names()}

        def release() -> None:
            for file in files:
                file.close()

        return cls(sources, release)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> LazyTensors:
        """`tensors` itself where it is lazy, else tensors that are there already."""
        return tensors if isinstance(tensors, cls) else cls({name: _constant(t) for name, t in tensors.items()})

    def outline(self, name: str) -> Tensor:
        """A tensor's type and shape, on the device "meta"; nothing of it is read."""
        return self._sources[name].outline()

    def renamed(self, new_name: Callable[[str], str | None]) -> LazyTensors:
        """The same tensors by other names; those whose new name is None are left out."""
        named = ((new_name(name), source) for name, source in self._sources.items())
        return LazyTensors({name: source for name, source in named if name is not None}, self.release)

    def changed(self, change: Callable[[str, Tensor], Tensor]) -> LazyTensors:
        """Every tensor, and every outline, goes through `change` with its name when it is asked for."""
        return LazyTensors({name: source.changed(name, change) for name, source in self._sources.items()}, self.release)

    def __or__(self, other: LazyTensors) -> LazyTensors:
        def release() -> None:
            self.release()
            other.release()

        return LazyTensors(self._sources | other._sources, release)

    def __getitem__(self, name: str) -> Tensor:
        return self._sources[name].make()

    def __iter__(self):
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)


class _TensorFile:
    """A safetensors file that is opened when it is needed."""

    def __init__(self, path: Path):
        self._path, self._opened = path, None
        _check_header(path)
        self._checksums = _read_checksums(self._file())

    def names(self) -> list[str]:
        return list(self._file().keys())

    def source(self, name: str) -> Source:
        return Source(lambda: self.get(name), lambda: self.outline(name))

    def outline(self, name: str) -> Tensor:
        piece = self._file().get_slice(name)
        dtype = _TYPES.get(piece.get_dtype())
        if dtype is None:
            raise InputError(
                f"{self._path.name}: {name!r} is of the type {piece.get_dtype()}; allowed: {', '.join(_TYPES)}. Get the model "
                "in another precision."
            )
        return torch.empty(piece.get_shape(), dtype=dtype, device="meta")

    def get(self, name: str) -> Tensor:
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
    """Before it is parsed, which takes many times its size."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length > MAX_HEADER:
        raise SafetensorError(f"the header has {length:,} bytes")


def _checksum(data: memoryview) -> str:
    return f"{zlib.crc32(data):0{_DIGITS}x}"


def _read_checksums(file: safe_open) -> dict[str, str]:
    """The checksums that a file carries, by name; none for a file of another writer."""
    text, names = (file.metadata() or {}).get(_CHECKSUMS, ""), sorted(file.keys())
    if len(text) != _DIGITS * len(names):
        return {}
    return {name: text[_DIGITS * i : _DIGITS * (i + 1)] for i, name in enumerate(names)}


def _constant(tensor: Tensor) -> Source:
    return Source(lambda: tensor, lambda: torch.empty_like(tensor, device="meta"))


def read_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    dtype: torch.dtype | None = None,
    on_tensor: Callable[[int, int], None] | None = None,
) -> None:
    """Write a safetensors file atomically with one tensor in memory at a time; equal tensors give equal bytes.

    Numbers with fractions become `dtype` where one is given; a number too large for it raises ValueError. `on_tensor` is
    told the bytes written and those of all tensors.
    """
    lazy = LazyTensors.of(tensors)
    outlines = {name: lazy.outline(name) for name in lazy}
    kinds = {name: _kind(outline, dtype) for name, outline in outlines.items()}
    table, total = _layout(kinds, {name: outline.shape for name, outline in outlines.items()})
    checksums = dict.fromkeys(table, "0" * _DIGITS)
    released = 0
    with atomic(path) as temporary:
        with temporary.open("wb") as file:
            file.write(_header(table, metadata, checksums))
            for name in table:
                checksums[name] = _write_one(file, _cast(name, lazy[name], kinds[name]))
                written = table[name]["data_offsets"][1]
                if written - released >= _HELD:
                    lazy.release()
                    released = written
                if on_tensor:
                    on_tensor(written, total)
            file.seek(0)
            file.write(_header(table, metadata, checksums))
        lazy.release()  # Windows replaces no file that is open or mapped, and the source may be the target


def _write_one(file: BinaryIO, tensor: Tensor) -> str:
    """Write a tensor's bytes and return their checksum; nothing of it is held afterwards."""
    data = _memory(tensor)
    file.write(data)
    return _checksum(data)


def _layout(kinds: dict[str, torch.dtype], shapes: dict[str, torch.Size]) -> tuple[dict[str, dict], int]:
    """The header's entry of every tensor, in the order in which they lie, and their bytes in all."""
    entries, total = {}, 0
    # Wide types first, so that every tensor lies at a multiple of its own width.
    for name in sorted(kinds, key=lambda name: (-kinds[name].itemsize, name)):
        size = shapes[name].numel() * kinds[name].itemsize
        entries[name] = {"dtype": _NAMES[kinds[name]], "shape": list(shapes[name]), "data_offsets": [total, total + size]}
        total += size
    return entries, total


def _header(table: dict[str, dict], metadata: Mapping[str, str], checksums: dict[str, str]) -> bytes:
    """Its length does not depend on the checksums, which are known last."""
    digits = "".join(checksums[name] for name in sorted(checksums))
    text = json.dumps({"__metadata__": {**metadata, _CHECKSUMS: digits}, **table}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _kind(outline: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and outline.is_floating_point() else outline.dtype


def _cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    cast = tensor.detach().cpu().to(dtype)
    if dtype == torch.float16 and tensor.dtype != dtype and not cast.isfinite().all() and tensor.isfinite().all():
        raise ValueError(f"{name} has a value of {tensor.abs().max():.3g}, too large for fp16; choose bf16 or fp32")
    return cast


def _memory(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
