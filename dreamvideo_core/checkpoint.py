"""One file is one model: a .safetensors file with the parts `unet.`, `retention.`, `text_encoder.` and `vae.`.

The configuration is JSON in the file's metadata, under one key so that the same model always gives the same bytes.
Writers that drop the metadata (ComfyUI's model savers) can keep the configuration as a tensor of bytes instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .config import ConfigError, ModelConfig
from .files import atomic

FORMAT = "dreamvideo"
VERSION = 1
PARTS = ("unet", "retention", "text_encoder", "vae")
CONFIG_TENSOR = "dreamvideo_config"
_LONG_TABLE = 1024
_VALUES, _ROWS, _COUNT = "#values", "#rows", "#count"
_SAVER_MARKS = ("v_pred", "ztsnr")  # empty tensors that ComfyUI's savers add; the configuration says the same


class CheckpointError(ValueError):
    """A file that is not a whole DreamVideo model of a version known here; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A model as a file holds it: its configuration, and the weights of each part without the part's prefix."""

    config: ModelConfig
    parts: dict[str, dict[str, Tensor]]

    def lacks(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if part not in self.parts)


def describe(config: ModelConfig) -> str:
    """The text that a file carries beside its weights."""
    return json.dumps({"format": FORMAT, "version": VERSION, "config": config.to_dict()}, sort_keys=True)


def config_tensor(config: ModelConfig) -> Tensor:
    """The same text as bytes in a tensor, for writers that keep tensors only."""
    return torch.frombuffer(bytearray(describe(config).encode()), dtype=torch.uint8)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write the file atomically; the same checkpoint gives the same bytes."""
    _check_parts(checkpoint.config, set(checkpoint.parts), str(path))
    tensors = {
        f"{part}.{name}": tensor.detach().cpu().contiguous()
        for part, state in checkpoint.parts.items()
        for name, tensor in state.items()
    }
    tensors = {k: v for name, tensor in tensors.items() for k, v in _pack(name, tensor).items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {FORMAT: describe(checkpoint.config)})


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a whole file; raises `CheckpointError` for a file that is not ours, damaged, or of a newer version."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name}: this is not a readable .safetensors file ({error}). It is damaged, cut off, or of another "
            "kind; copy or download it again."
        ) from error
    text = metadata.get(FORMAT) or _tensor_text(tensors.pop(CONFIG_TENSOR, None))
    config = _parse(text, path.name)
    return Checkpoint(config, _split(_unpack(tensors, path.name), config, path.name))


def _pack(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A table of which most rows are zero (words that a text encoder never met) as its other rows and their places."""
    if tensor.ndim != 2 or len(tensor) < _LONG_TABLE:
        return {name: tensor}
    rows = tensor.any(dim=1).nonzero().flatten()
    if 2 * len(rows) > len(tensor):
        return {name: tensor}
    return {name + _VALUES: tensor[rows], name + _ROWS: rows, name + _COUNT: torch.tensor([len(tensor)])}


def _unpack(tensors: dict[str, Tensor], file: str) -> dict[str, Tensor]:
    for name in [key[: -len(_VALUES)] for key in tensors if key.endswith(_VALUES)]:
        try:
            values, rows, (count,) = (tensors.pop(name + ending) for ending in (_VALUES, _ROWS, _COUNT))
            tensors[name] = values.new_zeros(int(count), values.shape[1]).index_copy(0, rows, values)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{file}: the table {name!r} is damaged ({error}). Get the file again.") from error
    return tensors


def _tensor_text(tensor: Tensor | None) -> str | None:
    return None if tensor is None else bytes(tensor.to(torch.uint8).tolist()).decode(errors="replace")


def _parse(text: str | None, name: str) -> ModelConfig:
    if text is None:
        raise CheckpointError(
            f"{name}: this file carries no DreamVideo configuration, so it is another kind of model. Choose a file "
            "that CheckpointSave or `dreamvideo train` has written."
        )
    try:
        header = json.loads(text)
        version = int(header["version"])
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r} and not {FORMAT!r}")
        if version > VERSION:
            raise CheckpointError(
                f"{name}: the file has format version {version}, this pack reads up to {VERSION}. Update the pack."
            )
        return ModelConfig.from_dict(header["config"])
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"{name}: {error}. Update the pack, or take the file's original version.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{name}: the configuration in the file is damaged ({error}). Get the file again.") from error


def _split(tensors: Mapping[str, Tensor], config: ModelConfig, name: str) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    foreign = []
    for key, tensor in tensors.items():
        part, _, rest = key.partition(".")
        if part in PARTS:
            parts.setdefault(part, {})[rest] = tensor
        elif key not in _SAVER_MARKS:
            foreign.append(key)
    if foreign:
        raise CheckpointError(
            f"{name}: {len(foreign)} tensors belong to no part of a DreamVideo model, {foreign[0]!r} for one. "
            f"The parts are {', '.join(PARTS)}."
        )
    _check_parts(config, set(parts), name)
    return parts


def _check_parts(config: ModelConfig, parts: set[str], name: str) -> None:
    described = {part for part in PARTS if getattr(config, part) is not None}
    if parts != described:
        raise CheckpointError(
            f"{name}: the configuration describes {sorted(described)}, the weights hold {sorted(parts)}. "
            "The file was not written whole; get it again."
        )


def check_keys(state: Mapping[str, Tensor], own: Mapping[str, Tensor], part: str) -> None:
    """Raise `CheckpointError` unless `state` has exactly the names and shapes of `own`, a module's own state."""
    expected = {k: v.shape for k, v in own.items()}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    problems = [f"{len(keys)} {word}, {keys[0]!r} for one" for word, keys in (("missing", missing), ("unknown", extra)) if keys]
    wrong = [k for k in expected.keys() & state.keys() if state[k].shape != expected[k]]
    if wrong:
        key = min(wrong)
        problems.append(f"{key!r} has shape {tuple(state[key].shape)} and not {tuple(expected[key])}")
    if problems:
        raise CheckpointError(f"the weights of {part!r} do not fit the configuration: {'; '.join(problems)}")
