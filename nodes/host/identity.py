"""What made a result, as a short text: equal texts mean equal results.

Functions and objects of ComfyUI and of this pack are known by their code and their settings, in this run of ComfyUI or another.
Those of other packs may depend on anything, so they are known by being the same object, in this run alone.
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
from collections.abc import Iterator, Mapping, Sequence
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

_DEPTH = 64
_COMFYUI = Path(folder_paths.__file__).resolve().parent
_PACK = Path(__file__).resolve().parents[2]
_TORCH = Path(torch.__file__).resolve().parent
_PYTHON = Path(sysconfig.get_path("stdlib")).resolve()
# Objects of these kinds note in attributes that begin with _ how far a run has come.
_PLACES_IN_A_RUN = (ContextHandlerABC, HookKeyframeGroup)
_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, types.EllipsisType)

_weights: weakref.WeakKeyDictionary[torch.nn.Module, bytes] = weakref.WeakKeyDictionary()
_THIS_PROCESS = uuid.uuid4().hex
_numbers = itertools.count()
_numbered: dict[int, tuple[weakref.ref, int]] = {}  # by `id`, as long as the object lives


class Unidentified(TypeError):
    """Something whose content cannot be told, such as an object of unknown make."""


@dataclass(frozen=True)
class Identity:
    """`key`, a digest in hexadecimal. `foreign` names what is known in this process alone; None: the key holds in any."""

    key: str
    foreign: str | None


def identify(*things: Any) -> Identity:
    """The identity of numbers, texts, tensors, conditionings, models, VAEs and what they are made of.

    Sampling changes none: what a function of ComfyUI's notes for itself on the way is left out. Raises `Unidentified` for a
    thing that might differ without showing it.
    """
    walk = _Walk(_notes(things))
    digest = hashlib.blake2b(digest_size=20)
    for thing in things:
        for piece in walk.pieces(thing, _DEPTH):
            digest.update(len(piece).to_bytes(8, "little") + piece)
    return Identity(digest.hexdigest(), walk.foreign)


class _Walk:
    """`foreign` names the first thing on the way that is known in this process alone."""

    def __init__(self, notes: set[int]):
        self.foreign: str | None = None
        self._notes = notes
        self._open: list[int] = []  # what holds the present thing

    def pieces(self, thing: Any, depth: int) -> Iterator[bytes]:
        if depth == 0:
            raise Unidentified(f"{type(thing).__qualname__} lies too deep")
        yield type(thing).__qualname__.encode()
        if thing is None or isinstance(thing, _PLAIN):
            yield repr(thing).encode()
        elif isinstance(thing, type):
            yield repr(thing).encode()
            yield from self._foreign_pieces(thing, _class_origin(thing))
        elif isinstance(thing, torch.Tensor):
            yield from (str(thing.dtype).encode(), repr(tuple(thing.shape)).encode(), _bytes(thing))
        elif id(thing) in self._open:
            yield f"holder {len(self._open) - self._open.index(id(thing))}".encode()
        else:
            self._open.append(id(thing))
            yield from self._made_of(thing, depth - 1)
            self._open.pop()

    def _made_of(self, thing: Any, depth: int) -> Iterator[bytes]:
        origin = _origin(thing)
        if origin is None:
            yield from self._foreign_pieces(thing, None)
            return
        parts = _function_parts(thing, origin, self._notes) if isinstance(thing, types.FunctionType) else _parts(thing)
        for part in parts:
            yield from self.pieces(part, depth)

    def _foreign_pieces(self, thing: Any, origin: str | None) -> Iterator[bytes]:
        """For a thing of another pack: its number in this process."""
        if origin is None:
            self.foreign = self.foreign or _name(thing)
            yield f"{_THIS_PROCESS} {_number(thing)}".encode()


def _origin(thing: Any) -> str | None:
    """Whose code a thing is, with its version; None for what may depend on anything."""
    if isinstance(thing, types.FunctionType):
        return _file_origin(thing.__code__.co_filename)
    if isinstance(thing, types.ModuleType):
        return _module_origin(thing.__name__)
    if isinstance(thing, comfy.model_patcher.PatcherInjection):
        return None  # it reaches into the layers themselves
    return _class_origin(type(getattr(thing, "_orig_mod", thing)))


def _class_origin(kind: type) -> str | None:
    """None where the class or one that it is made from is of another pack."""
    origins = [_module_origin(cls.__module__) for cls in kind.__mro__]
    return None if None in origins else origins[0]


def _module_origin(module: str) -> str | None:
    return "Python" if module in sys.builtin_module_names else _file_origin(_module_file(module))


def _module_file(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


@functools.lru_cache(maxsize=4096)
def _file_origin(file: str) -> str | None:
    """A file of ComfyUI's, of this pack, of torch or of Python itself, as its path in there with the version."""
    path = Path(file).resolve()
    for root, version, belongs in _ROOTS:
        if path.is_relative_to(root) and path != root and belongs(path.relative_to(root).parts):
            return f"{path.relative_to(root).as_posix()} {version}"
    return None


def _is_stock(parts: Sequence[str]) -> bool:
    """Below ComfyUI's folder there may be other packs and a whole Python as well."""
    return parts[0].startswith("comfy") if len(parts) > 1 else parts[0].endswith(".py")


# This pack's code changes without its version: it is known by its code, and by ComfyUI's version.
_ROOTS = (
    (_COMFYUI, comfyui_version, _is_stock),
    (_PACK, comfyui_version, lambda parts: parts[0] in ("nodes", "dreamvideo_core")),
    (_TORCH, torch.__version__, lambda parts: True),
    (_PYTHON, sys.version, lambda parts: parts[0] not in ("site-packages", "dist-packages")),
)


def _parts(thing: Any) -> list:
    """What an object is made of."""
    if isinstance(thing, comfy.model_patcher.ModelPatcher):
        return _model_parts(thing)
    if isinstance(thing, VAE):
        return [_weights_of(thing.first_stage_model)]
    if isinstance(thing, torch.nn.Module):
        return _module_parts(thing)
    if isinstance(thing, _PLACES_IN_A_RUN):
        return [{name: value for name, value in vars(thing).items() if not name.startswith("_")}]
    if isinstance(thing, Mapping):
        # A patch that notes which devices lack an operation says nothing of its result.
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
        return []  # a name drawn at random, which changes no result
    if hasattr(thing, "__dict__"):
        return [type(thing).__module__, vars(thing)]
    raise Unidentified(f"{type(thing).__qualname__} cannot be told apart from another")


def _model_parts(patcher: comfy.model_patcher.ModelPatcher) -> list:
    """The files it was read from, and everything laid over them since."""
    source = getattr(patcher.model, "source", None)
    if source is None:
        raise Unidentified("the model was not loaded by Load DreamVideo")
    if patcher.hook_patches:
        raise Unidentified("the model has weight hooks")
    patches = patcher.patches, patcher.object_patches, patcher.weight_wrapper_patches
    parts = [source, *patches, patcher.model_options, _foreign_wrappers(patcher), patcher.callbacks, patcher.additional_models]
    return [*parts, patcher.injections] if patcher.injections else parts


def _foreign_wrappers(patcher: comfy.model_patcher.ModelPatcher) -> list:
    """Ours change no result; their names hold the folder that the pack lies in, which may move."""
    of_all_kinds = [item for keyed in patcher.wrappers.values() for item in keyed.items()]
    ours = sharing.RUN_KEY, sharing.STEP_KEY, cuda_graphs.KEY
    return [(key, wrappers) for key, wrappers in of_all_kinds if key not in ours]


def _module_parts(module: torch.nn.Module) -> list:
    """Its classes, its settings and its weights; a compiled module does what the one behind it does."""
    module = getattr(module, "_orig_mod", module)
    settings = {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
    return [[kind.__qualname__ for kind in type(module).__mro__], settings, _weights_of(module)]


def _function_parts(function: types.FunctionType, origin: str, notes: set[int]) -> list:
    """Its code, and everything that it was given when it was made."""
    closure = [_content(cell) for cell in function.__closure__ or () if id(cell) not in notes]
    return [origin, function.__qualname__, function.__code__, function.__defaults__, function.__kwdefaults__, closure]


def _code_parts(code: types.CodeType) -> list:
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    return [code.co_code, code.co_consts, *names, *counts]


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a variable that has no value yet
        return None


def _notes(things: Any) -> set[int]:
    """Variables, by the `id` of their cells, into which functions of ComfyUI's write while they run, such as a running mean.

    They hold what the last run left, and say nothing of the next result.
    """
    found, seen, waiting = set(), set(), list(things)
    while waiting:
        thing = waiting.pop()
        if (
            id(thing) in seen
            or thing is None
            or isinstance(thing, (torch.Tensor, torch.nn.Module, types.ModuleType, type, *_PLAIN))
        ):
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            cells = dict(zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True))
            found |= {id(cells[name]) for name in _rebound(thing.__code__) if name in cells}
            waiting += [thing.__defaults__, thing.__kwdefaults__, *map(_content, cells.values())]
        elif isinstance(thing, comfy.model_patcher.ModelPatcher):
            waiting += [thing.object_patches, thing.model_options, thing.wrappers, thing.callbacks, thing.additional_models]
        elif isinstance(thing, Mapping):
            waiting += thing.values()
        elif isinstance(thing, (list, tuple, set, frozenset)):
            waiting += thing
        elif isinstance(thing, functools.partial):
            waiting += [thing.func, thing.args, thing.keywords]
        elif isinstance(thing, types.MethodType):
            waiting += [thing.__func__, thing.__self__]
        elif hasattr(thing, "__dict__"):
            waiting.append(vars(thing))
    return found


def _rebound(code: types.CodeType) -> set[str]:
    """The variables of functions around it that a function, or one within it, gives new values."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("STORE_DEREF", "DELETE_DEREF")}
    inner = (_rebound(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return names.union(*inner) & set(code.co_freevars)


def _name(thing: Any) -> str:
    """What a thing of another pack is called, and where it comes from."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    file = Path(_module_file(named.__module__) or named.__module__)
    return f"{named.__qualname__} of {file.parent.name if file.stem == '__init__' else file.stem}"


def _number(thing: Any) -> int:
    """A number that no other object of this process ever has, also when this one is gone."""
    place = id(thing)
    if place not in _numbered:
        try:
            reference = weakref.ref(thing, lambda _: _numbered.pop(place, None))
        except TypeError:
            raise Unidentified(f"{_name(thing)} cannot be told apart from another") from None
        _numbered[place] = reference, next(_numbers)
    return _numbered[place][1]


def _weights_of(module: torch.nn.Module) -> bytes:
    """A digest of all weights, made once for each module that lives."""
    if module not in _weights:
        digest = hashlib.blake2b(digest_size=20)
        for name, tensor in module.state_dict().items():
            digest.update(name.encode() + _bytes(tensor))
        _weights[module] = digest.digest()
    return _weights[module]


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
