"""Keys for what made a result: equal keys mean equal results.

Functions and objects of ComfyUI and of this pack are identified by their code and settings, so their keys hold in any process.
Those of other packs may depend on anything: they are identified as objects, so their keys hold in this process alone.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import itertools
import sys
import sysconfig
import types
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_patcher
import folder_paths
import torch
from comfy.context_windows import ContextHandlerABC
from comfy.hooks import HookKeyframeGroup
from comfy.sd import VAE
from comfyui_version import __version__ as comfyui_version

from . import cuda_graphs, sharing

_DEPTH = 64  # of things within things
_COMFYUI = Path(folder_paths.__file__).resolve().parent
_PACK = Path(__file__).resolve().parents[2]
_TORCH = Path(torch.__file__).resolve().parent
_PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
# Attributes of these objects that begin with _ hold the progress of a run.
_WITH_PROGRESS = (ContextHandlerABC, HookKeyframeGroup)
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, types.EllipsisType)

_weight_digests: weakref.WeakKeyDictionary[torch.nn.Module, bytes] = weakref.WeakKeyDictionary()
_THIS_PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
_numbered: dict[int, tuple[weakref.ref, int]] = {}  # by `id`, while the object lives


class Unidentified(TypeError):
    """Something that cannot be told apart from another thing, such as an object of unknown content."""


@dataclass(frozen=True)
class Identity:
    """`key` is a hexadecimal digest. `foreign` names a part of another pack, with which it holds in this process alone."""

    key: str
    foreign: str | None


@dataclass(frozen=True)
class _Foreign:
    """A thing of another pack."""

    thing: Any


@dataclass(frozen=True)
class _Variable:
    """A variable that a function closes over, by the `id` of its cell, and the pieces of its value."""

    cell: int
    pieces: list[_Piece]


_Piece = bytes | torch.Tensor | _Foreign | _Variable | Unidentified


def identify(*things: Any) -> Identity:
    """The identity of numbers, texts, tensors, conditionings, models, VAEs and what these hold.

    Sampling does not change it: variables into which a function writes while it runs, such as a running mean, do not count.
    Raises `Unidentified` for a thing that might differ without showing it.
    """
    walk = _Walk()
    pieces = [piece for thing in things for piece in walk.pieces(thing, _DEPTH)]
    foreign, digest = None, hashlib.blake2b(digest_size=20)
    for piece in walk.lasting(pieces):
        if isinstance(piece, Unidentified):
            raise piece
        if isinstance(piece, _Foreign):
            foreign = foreign or _name(piece.thing)
        content = _content(piece)
        digest.update(len(content).to_bytes(8, "little") + content)
    return Identity(digest.hexdigest(), foreign)


class _Walk:
    """Takes things apart into pieces, and collects the variables that functions among them rebind."""

    def __init__(self):
        self._rebound: set[int] = set()  # by the `id` of their cells
        self._open: list[int] = []  # the `id`s of the things that hold the present one

    def pieces(self, thing: Any, depth: int) -> Iterator[_Piece]:
        if isinstance(thing, types.CellType):
            yield self._variable(thing, depth)
            return
        if depth == 0:
            raise Unidentified(f"{type(thing).__qualname__} lies too deep")
        yield type(thing).__qualname__.encode()
        if thing is None or isinstance(thing, _PLAIN):
            yield repr(thing).encode()
        elif isinstance(thing, type):
            yield repr(thing).encode()
            if _class_origin(thing) is None:
                yield _Foreign(thing)
        elif isinstance(thing, torch.Tensor):
            yield from (str(thing.dtype).encode(), repr(tuple(thing.shape)).encode(), thing)
        elif id(thing) in self._open:
            yield f"holder {len(self._open) - self._open.index(id(thing))}".encode()
        else:
            self._open.append(id(thing))
            yield from self._inner_pieces(thing, depth - 1)
            self._open.pop()

    def lasting(self, pieces: Iterable[_Piece]) -> Iterator[_Piece]:
        """The pieces without those of rebound variables, once the walk is complete."""
        for piece in pieces:
            if not isinstance(piece, _Variable):
                yield piece
            elif piece.cell not in self._rebound:
                yield from self.lasting(piece.pieces)

    def _inner_pieces(self, thing: Any, depth: int) -> Iterator[_Piece]:
        origin = _origin(thing)
        if origin is None:
            yield _Foreign(thing)
            return
        if isinstance(thing, types.FunctionType):
            self._rebound |= _rebound_cells(thing)
            inner = _function_parts(thing, origin)
        else:
            inner = _parts(thing)
        for part in inner:
            yield from self.pieces(part, depth)

    def _variable(self, cell: types.CellType, depth: int) -> _Variable:
        """An unidentifiable value is an error only if the variable counts, so the error becomes a piece."""
        holders = len(self._open)
        try:
            pieces = list(self.pieces(_value_of(cell), depth))
        except Unidentified as reason:
            del self._open[holders:]
            pieces = [reason]
        return _Variable(id(cell), pieces)


def _value_of(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None


def _content(piece: bytes | torch.Tensor | _Foreign) -> bytes:
    if isinstance(piece, _Foreign):
        return f"{_THIS_PROCESS} {_number(piece.thing)}".encode()
    return _bytes(piece) if isinstance(piece, torch.Tensor) else piece


def _origin(thing: Any) -> str | None:
    """The file that a thing's code comes from, with a version; None for code of another pack."""
    if isinstance(thing, types.FunctionType):
        return _file_origin(thing.__code__.co_filename)
    if isinstance(thing, types.ModuleType):
        return _module_origin(thing.__name__)
    if isinstance(thing, comfy.model_patcher.PatcherInjection):
        return None  # it changes the layers themselves
    return _class_origin(type(getattr(thing, "_orig_mod", thing)))


def _class_origin(kind: type) -> str | None:
    """As `_origin`; None if the class or one of its bases is of another pack."""
    origins = [_module_origin(cls.__module__) for cls in kind.__mro__]
    return None if None in origins else origins[0]


def _module_origin(module: str) -> str | None:
    return "Python" if module in sys.builtin_module_names else _file_origin(_module_file(module))


def _module_file(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


@functools.lru_cache(maxsize=4096)
def _file_origin(file: str) -> str | None:
    """The path within ComfyUI, this pack, torch or Python, with a version; None for any other file."""
    path = Path(file).resolve()
    for root, version, belongs in _ROOTS:
        if path.is_relative_to(root) and path != root and belongs(path.relative_to(root).parts):
            return f"{path.relative_to(root).as_posix()} {version}"
    return None


def _is_stock(parts: Sequence[str]) -> bool:
    """Whether a path below ComfyUI's folder is ComfyUI's own: other packs, and a whole Python, may lie there too."""
    return parts[0].startswith("comfy") if len(parts) > 1 else parts[0].endswith(".py")


# This pack's functions are identified by their code. Its own version may lag behind, so ComfyUI's stands in its place.
_ROOTS = (
    (_COMFYUI, comfyui_version, _is_stock),
    (_PACK, comfyui_version, lambda parts: parts[0] in ("nodes", "dreamvideo_core")),
    (_TORCH, torch.__version__, lambda parts: True),
    (_PYTHON, sys.version, lambda parts: parts[0] not in ("site-packages", "dist-packages")),
)


def _parts(thing: Any) -> list:
    """What identifies an object."""
    if isinstance(thing, comfy.model_patcher.ModelPatcher):
        return _model_parts(thing)
    if isinstance(thing, VAE):
        return [_weight_digest(thing.first_stage_model)]
    if isinstance(thing, torch.nn.Module):
        return _module_parts(thing)
    if isinstance(thing, _WITH_PROGRESS):
        return [{name: value for name, value in vars(thing).items() if not name.startswith("_")}]
    if isinstance(thing, Mapping):
        # Entries by device are a patch's memory of what a device cannot do; they do not change its result.
        items = [(key, value) for key, value in thing.items() if not isinstance(key, torch.device)]
        return sorted(items, key=lambda item: repr(item[0]))
    if isinstance(thing, (list, tuple)):
        return list(thing)
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=repr)
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, types.CodeType):
        return _code_parts(thing)
    if isinstance(thing, types.BuiltinFunctionType):
        owner = None if isinstance(thing.__self__, types.ModuleType) else thing.__self__
        return [thing.__module__, thing.__qualname__, *([] if owner is None else [owner])]
    if isinstance(thing, types.ModuleType):
        return [thing.__name__]
    if isinstance(thing, uuid.UUID):
        return []  # a random name, which changes no result
    if hasattr(thing, "__dict__"):
        return [type(thing).__module__, vars(thing)]
    raise Unidentified(f"{type(thing).__qualname__} cannot be told apart from another")


def _model_parts(patcher: comfy.model_patcher.ModelPatcher) -> list:
    """The files that a model was read from, and all patches."""
    source = getattr(patcher.model, "source", None)
    if source is None:
        raise Unidentified("the model was not loaded by Load DreamVideo")
    if patcher.hook_patches:
        raise Unidentified("the model has weight hooks")
    patches = patcher.patches, patcher.object_patches, patcher.weight_wrapper_patches
    parts = [source, *patches, patcher.model_options, _foreign_wrappers(patcher), patcher.callbacks, patcher.additional_models]
    return [*parts, patcher.injections] if patcher.injections else parts


def _foreign_wrappers(patcher: comfy.model_patcher.ModelPatcher) -> list:
    """The wrappers of other nodes. This pack's change no result."""
    of_all_kinds = [item for by_key in patcher.wrappers.values() for item in by_key.items()]
    own = sharing.RUN_KEY, sharing.STEP_KEY, cuda_graphs.KEY
    return [(key, wrappers) for key, wrappers in of_all_kinds if key not in own]


def _module_parts(module: torch.nn.Module) -> list:
    """A module's classes, settings and weights; a compiled module is identified as the original one."""
    module = getattr(module, "_orig_mod", module)
    settings = {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
    return [[kind.__qualname__ for kind in type(module).__mro__], settings, _weight_digest(module)]


def _function_parts(function: types.FunctionType, origin: str) -> list:
    """A function's code, its defaults and the variables that it closes over."""
    variables = list(function.__closure__ or ())
    return [origin, function.__qualname__, function.__code__, function.__defaults__, function.__kwdefaults__, variables]


def _code_parts(code: types.CodeType) -> list:
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return [code.co_code, code.co_consts, *names, *counts]


def _rebound_cells(function: types.FunctionType) -> set[int]:
    """The `id`s of the cells of a function's variables that it rebinds when it runs."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return {id(cells[name]) for name in _rebound(function.__code__)}


def _rebound(code: types.CodeType) -> set[str]:
    """The free variables that code, or a function within it, assigns to or deletes (`nonlocal`)."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_DEREF", "DELETE_DEREF")}
    inner = (_rebound(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return names.union(*inner) & set(code.co_freevars)


def _name(thing: Any) -> str:
    """The name of a thing of another pack, and its module's."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    file = Path(_module_file(named.__module__) or named.__module__)
    return f"{named.__qualname__} of {file.parent.name if file.stem == '__init__' else file.stem}"


def _number(thing: Any) -> int:
    """A number that no other object of this process ever gets, even after this one is gone."""
    address = id(thing)
    if address not in _numbered:
        try:
            reference = weakref.ref(thing, lambda _: _numbered.pop(address, None))
        except TypeError:
            raise Unidentified(f"{_name(thing)} cannot be told apart from another") from None
        _numbered[address] = reference, next(_numbers)
    return _numbered[address][1]


def _weight_digest(module: torch.nn.Module) -> bytes:
    """A digest of all weights, computed once per module."""
    if module not in _weight_digests:
        digest = hashlib.blake2b(digest_size=20)
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + _bytes(tensor))
        _weight_digests[module] = digest.digest()
    return _weight_digests[module]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
