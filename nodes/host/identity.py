"""What made a result, as a short text: equal texts mean equal results, in this run of ComfyUI or another."""

from __future__ import annotations

import functools
import hashlib
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import comfy.model_patcher
import torch
from comfy.context_windows import ContextHandlerABC
from comfy.sd import VAE

from . import graphs, sharing

_DEPTH = 12
_weights: weakref.WeakKeyDictionary[torch.nn.Module, bytes] = weakref.WeakKeyDictionary()


class Unidentified(TypeError):
    """Something whose content cannot be told, such as an object of unknown make."""


def identify(*things: Any) -> str:
    """A digest of numbers, texts, tensors, conditionings, models, VAEs and what they are made of.

    Raises `Unidentified` for a thing that might differ without showing it.
    """
    digest = hashlib.blake2b(digest_size=20)
    for thing in things:
        for piece in _pieces(thing, _DEPTH):
            digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def _pieces(thing: Any, depth: int) -> Iterator[bytes]:
    if depth == 0:
        raise Unidentified(f"{type(thing).__qualname__} lies too deep")
    yield type(thing).__qualname__.encode()
    if thing is None or isinstance(thing, (bool, int, float, complex, str, bytes, torch.dtype, torch.device, type)):
        yield repr(thing).encode()
    elif isinstance(thing, torch.Tensor):
        yield from (str(thing.dtype).encode(), repr(tuple(thing.shape)).encode(), _bytes(thing))
    else:
        for part in _parts(thing):
            yield from _pieces(part, depth - 1)


def _parts(thing: Any) -> list:
    """What an object is made of."""
    if isinstance(thing, comfy.model_patcher.ModelPatcher):
        return _model_parts(thing)
    if isinstance(thing, VAE):
        return [_weights_of(thing.first_stage_model)]
    if isinstance(thing, torch.nn.Module):
        return _module_parts(thing)
    if isinstance(thing, ContextHandlerABC):  # what begins with _ is where it is in a run
        return [{name: value for name, value in vars(thing).items() if not name.startswith("_")}]
    if isinstance(thing, Mapping):
        return sorted(thing.items(), key=lambda item: repr(item[0]))
    if isinstance(thing, (list, tuple)):
        return list(thing)
    if isinstance(thing, (set, frozenset)):
        return sorted(thing, key=repr)
    if isinstance(thing, functools.partial):
        return [thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        return _function_parts(thing)
    if isinstance(thing, types.BuiltinFunctionType):
        return [thing.__module__, thing.__qualname__]
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
    if patcher.injections:
        raise Unidentified("something was put into the model's layers, such as a LoRA in bypass mode")
    patches = patcher.patches, patcher.object_patches, patcher.weight_wrapper_patches
    return [source, *patches, patcher.model_options, _foreign_wrappers(patcher), patcher.callbacks, patcher.additional_models]


def _foreign_wrappers(patcher: comfy.model_patcher.ModelPatcher) -> list:
    """Ours change no result; their names hold the folder that the pack lies in, which may move."""
    of_all_kinds = [item for keyed in patcher.wrappers.values() for item in keyed.items()]
    return [(key, wrappers) for key, wrappers in of_all_kinds if key not in (sharing.RUN_KEY, sharing.STEP_KEY, graphs.KEY)]


def _module_parts(module: torch.nn.Module) -> list:
    """Its classes, its settings and its weights; a compiled module does what the one behind it does."""
    module = getattr(module, "_orig_mod", module)
    settings = {name: value for name, value in vars(module).items() if isinstance(value, (bool, int, float, str))}
    return [[kind.__qualname__ for kind in type(module).__mro__], settings, _weights_of(module)]


def _function_parts(function: Callable) -> list:
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__module__, function.__qualname__, function.__defaults__, closure]


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
