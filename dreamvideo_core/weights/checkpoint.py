"""One file is one model: a .safetensors file with the parts `unet.`, `text_encoder.`, `vae.` and others (`PARTS`).

The configuration is JSON in the file's metadata. ComfyUI's savers drop the metadata; for them it is a tensor of bytes.

An overlay is a file of trained layers alone: a retention branch, temporal layers, or both. It is laid over the model that
they were trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..common.checks import InputError, shown
from ..common.json_files import MAX_BYTES, parse_object
from ..models.config import AutoencoderConfig, ConfigError, ModelConfig
from ..models.unet import is_temporal
from .diagnosis import describe_damage, describe_kind
from .expected_weights import expected_weights
from .original_names import as_linear, diffusers_vae_name
from .tensor_files import LazyTensor, LazyTensors, read_metadata, write_tensors

FORMAT = "dreamvideo"
VERSION = 1
PARTS = ("unet", "retention", "text_encoder", "vae", "resampler", "image_encoder")
# What it means that a file lacks a part, and what else provides it.
LACKING = {
    "unet": "U-Net: it cannot sample",
    "retention": "retention branch: text to video only (`dreamvideo init-retention` begins one)",
    "text_encoder": "text encoder: Load CLIP brings it",
    "vae": "VAE: Load VAE brings it",
    "resampler": "resampler: it cannot use what CLIP sees of the picture; get a file that has one",
    "image_encoder": "CLIP vision model: Load CLIP Vision brings it, with CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors in "
    "models/clip_vision",
}
_LACKING_OPENCLIP = "text encoder: Load CLIP brings it, with Stable Diffusion 2.1's (OpenCLIP ViT-H) in models/text_encoders"
CONFIG_TENSOR = "dreamvideo_config"
# A packed table is three tensors: the rows that are not zero, their numbers, and the number of all rows.
_VALUES, _ROWS, _COUNT = "#values", "#rows", "#count"
_LEAST_ROWS, _MOST_VALUES = 1024, 2**40
# ComfyUI's savers add these to tell the kind of sampling, which the configuration says as well.
_SAVER_MARKS = ("v_pred", "ztsnr", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


class CheckpointError(InputError):
    """A file that is no whole DreamVideo model of a known version; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A model's configuration, and the weights of each part by their names without the part's prefix.

    `name` is the model's name in messages, `remarks` are what a person should be told about it.
    """

    config: ModelConfig
    parts: dict[str, Mapping[str, Tensor]]
    name: str = "the model"
    remarks: tuple[str, ...] = ()

    def lacks(self) -> tuple[str, ...]:
        """The parts that are missing. A model that sees the picture by CLIP has two parts in place of a retention branch."""
        unneeded = ("retention",) if _sees_by_clip(self.config) else ("resampler", "image_encoder")
        return tuple(part for part in PARTS if part not in self.parts and part not in unneeded)

    def shortcomings(self) -> list[str]:
        """What it means that parts are missing, and what brings them, a sentence each."""
        sentences = {**LACKING, "text_encoder": _LACKING_OPENCLIP} if _sees_by_clip(self.config) else LACKING
        return [f"no {sentences[part]}" for part in self.lacks()]

    def is_overlay(self) -> bool:
        """Whether it has a branch, temporal layers or both, but no spatial layers of the U-Net."""
        return bool({"unet", "retention"} & self.parts.keys()) and all(map(is_temporal, self.parts.get("unet", ())))

    def only(self, parts: Container[str]) -> Checkpoint:
        """This model with the named parts alone; "temporal" stands for the U-Net's temporal layers."""
        chosen = {part: state for part, state in self.parts.items() if part in parts}
        if "temporal" in parts and "unet" not in chosen and "unet" in self.parts:
            chosen["unet"] = LazyTensors.of(self.parts["unet"]).renamed(lambda name: name if is_temporal(name) else None)
        config = replace(self.config, **{part: None for part in PARTS if part not in chosen})
        return replace(self, config=config, parts=chosen)

    def overlaid(self, overlay: Checkpoint) -> Checkpoint:
        """This model with the weights of `overlay` in place of its own. Raises `CheckpointError` if they do not fit."""
        for setting in ("schedule", "unet") if "unet" in overlay.parts else ("schedule",):
            _check_equal(asdict(self.config)[setting], asdict(overlay.config)[setting], setting, overlay.name)
        parts = {**self.parts, **overlay.parts}
        if "unet" in overlay.parts:
            parts["unet"] = LazyTensors.of(self.parts.get("unet", {})) | LazyTensors.of(overlay.parts["unet"])
        config = replace(self.config, **{part: getattr(overlay.config, part) for part in overlay.parts})
        remarks = self.remarks + overlay.remarks
        return check_weights(Checkpoint(config, parts, f"{overlay.name} laid over {self.name}", remarks))

    def release(self) -> None:
        """Close the files that weights are read from; they are opened again on demand."""
        for state in self.parts.values():
            LazyTensors.of(state).release()


def _check_equal(mine: object, theirs: object, setting: str, overlay: str) -> None:
    """Raise `CheckpointError` if a setting of the model and of the overlay, or one within a table, differs."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in mine:
            _check_equal(mine[key], theirs.get(key), key, overlay)
    elif mine != theirs:
        raise CheckpointError(
            f"{overlay}: the overlay was trained on another kind of model: its {setting} is {shown(theirs)}, this model's is "
            f"{shown(mine)}. Choose the model that it was trained on"
        )


def _sees_by_clip(config: ModelConfig) -> bool:
    return config.unet is not None and config.unet.image_cross_attention != "none"


def config_text(config: ModelConfig) -> str:
    """The configuration as JSON for a file's metadata; equal configurations give equal texts."""
    return json.dumps({"format": FORMAT, "version": VERSION, "config": config.to_dict()}, sort_keys=True)


def config_tensor(config: ModelConfig) -> Tensor:
    """The same text as a tensor of bytes, for writers that keep only tensors."""
    return torch.frombuffer(bytearray(config_text(config).encode()), dtype=torch.uint8)


def save_checkpoint(
    path: str | Path,
    checkpoint: Checkpoint,
    dtype: torch.dtype | None = None,
    on_tensor: Callable[[int, int], None] | None = None,
) -> None:
    """Write a file; see `write_tensors` for `dtype` and `on_tensor`. Equal checkpoints give equal bytes."""
    _check_parts(checkpoint.config, set(checkpoint.parts), str(path))
    tensors = LazyTensors.of({})
    for part, state in checkpoint.parts.items():
        lazy = LazyTensors.of(state)
        tensors |= (_packed(lazy) if part == "text_encoder" else lazy).renamed(f"{part}.{{}}".format)
    write_tensors(path, tensors, {FORMAT: config_text(checkpoint.config)}, dtype, on_tensor)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Open a DreamVideo file; its weights are read on demand.

    Raises `CheckpointError` for a file that is of another kind, damaged, or of a newer version.
    """
    path = Path(path)
    return own_checkpoint(*read_file(path), path.name)


def own_checkpoint(tensors: LazyTensors, text: str | None, name: str) -> Checkpoint:
    """The checkpoint in what `read_file` gives of a file called `name`; raises `CheckpointError` as `load_checkpoint` does."""
    if text is None:
        raise CheckpointError(f"{name}: {describe_kind(tensors)}")
    config = _parse_config(text, name)
    return check_weights(Checkpoint(config, _split(_unpacked(tensors, name), config, name), name))


def read_file(path: Path) -> tuple[LazyTensors, str | None]:
    """All tensors of a safetensors file, and the text of DreamVideo's configuration, if it has one."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no such file")
        tensors, metadata = LazyTensors.of_files([path]), read_metadata(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name}: {describe_damage(path)}") from error
    text = metadata.get(FORMAT) or _text_of_tensor(tensors, path.name)
    return tensors.renamed(lambda name: None if name == CONFIG_TENSOR else name), text


def _packed(state: LazyTensors) -> LazyTensors:
    """Long tables with mostly zero rows (words that a text encoder never met) are packed: only the other rows are kept."""
    packed = {}
    for name in state:
        table = state[name]
        if table.ndim == 2 and len(table) >= _LEAST_ROWS:
            rows = table.any(dim=1).nonzero().flatten()
            if 2 * len(rows) <= len(table):
                packed |= {name + _VALUES: table[rows], name + _ROWS: rows, name + _COUNT: torch.tensor([len(table)])}
            state.release()
    return state.renamed(lambda name: None if name + _VALUES in packed else name) | LazyTensors.of(packed)


def _unpacked(tensors: LazyTensors, file: str) -> LazyTensors:
    """Packed tables as whole ones, which are built on demand; their sizes are checked now."""
    names = [key.removesuffix(_VALUES) for key in tensors if key.endswith(_VALUES)]
    packed = {name + ending for name in names for ending in (_VALUES, _ROWS, _COUNT)}
    tables = {name: _unpacked_table(tensors, name, file) for name in names}
    return tensors.renamed(lambda name: None if name in packed else name) | LazyTensors(tables)


def _unpacked_table(tensors: LazyTensors, name: str, file: str) -> LazyTensor:
    def damaged(why: object) -> CheckpointError:
        return CheckpointError(f"{file}: the table {name!r} is damaged ({why}). Get the file again.")

    names = [name + ending for ending in (_VALUES, _ROWS, _COUNT)]
    missing = [tensor for tensor in names if tensor not in tensors]
    if missing:
        raise damaged(f"{missing[0]!r} is missing")
    values, rows, count = map(tensors.outline, names)
    if values.ndim != 2 or rows.shape != values.shape[:1] or count.numel() != 1 or count.is_floating_point():
        raise damaged(f"values {tuple(values.shape)}, rows {tuple(rows.shape)}, count {tuple(count.shape)} do not fit together")
    length = int(tensors[names[2]])
    if length < len(rows) or length * values.shape[1] > _MOST_VALUES:
        raise damaged(f"it has {len(rows)} rows of {length}")
    if name in tensors:
        raise damaged("it is there as a whole too")

    def load() -> Tensor:
        values, rows = tensors[names[0]], tensors[names[1]]
        try:
            return values.new_zeros(length, values.shape[1]).index_copy(0, rows, values)
        except (IndexError, RuntimeError) as error:
            raise damaged(str(error).partition("\n")[0]) from error

    return LazyTensor(load, lambda: values.new_empty(length, values.shape[1]))


def _text_of_tensor(tensors: LazyTensors, file: str) -> str | None:
    if CONFIG_TENSOR not in tensors:
        return None
    size = tensors.outline(CONFIG_TENSOR).numel()
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{file}: its configuration has {size:,} bytes; allowed: up to {MAX_BYTES:,}. Get the file again."
        )
    return bytes(tensors[CONFIG_TENSOR].flatten().to(torch.uint8).tolist()).decode(errors="replace")


def _parse_config(text: str, name: str) -> ModelConfig:
    try:
        header = parse_object(text, "it")
        version = header.get("version")
        if header.get("format") != FORMAT:
            raise ConfigError(f"its format is {shown(header.get('format'))}; allowed: {FORMAT!r}")
        if type(version) is not int or version < 1:
            raise ConfigError(f"its version is {shown(version)}; allowed: a whole number from 1 to {VERSION}")
        if version > VERSION:
            raise CheckpointError(
                f"{name}: the file has format version {version}, this pack reads up to {VERSION}. Update the pack."
            )
        return ModelConfig.from_dict(header.get("config"))
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(
            f"{name}: the configuration in the file is damaged, or of a newer pack: {error}. Get the file again, or update the "
            "pack."
        ) from error
    except InputError as error:
        raise CheckpointError(f"{name}: the configuration in the file is damaged: {error}") from error


def _split(tensors: LazyTensors, config: ModelConfig, name: str) -> dict[str, Mapping[str, Tensor]]:
    """The tensors by part, without the parts' prefixes."""
    known = {part for part in PARTS for key in tensors if key.startswith(f"{part}.")}
    foreign = [key for key in tensors if key.partition(".")[0] not in known and key not in _SAVER_MARKS]
    if foreign:
        raise CheckpointError(
            f"{name}: {len(foreign)} tensors belong to no part of a DreamVideo model, {shown(foreign[0])} for one. "
            f"The parts are {', '.join(PARTS)}."
        )
    _check_parts(config, known, name)
    parts = {part: tensors.renamed(_remover(f"{part}.")) for part in PARTS if part in known}
    if "vae" in parts:
        parts["vae"] = diffusers_vae(parts["vae"], config.vae)
    return parts


def diffusers_vae(state: LazyTensors, config: AutoencoderConfig) -> LazyTensors:
    """An autoencoder by diffusers' present names. ComfyUI's savers write a full-size one by its original names."""
    if config.layout != "kl":
        return state
    return state.renamed(lambda name: diffusers_vae_name(name, len(config.block_out_channels))).changed(as_linear)


def _remover(prefix: str) -> Callable[[str], str | None]:
    return lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None


def _check_parts(config: ModelConfig, parts: set[str], name: str) -> None:
    described = {part for part in PARTS if getattr(config, part) is not None}
    if parts != described:
        raise CheckpointError(
            f"{name}: the configuration describes {sorted(described)}, the weights hold {sorted(parts)}. "
            "The file was not written whole; get it again."
        )


def check_weights(checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` itself. Raises `CheckpointError` if its weights' names, types and shapes do not fit its configuration.

    No weights are read. An overlay need not have all temporal layers.
    """
    config, overlay = checkpoint.config, checkpoint.is_overlay()
    for part, state in checkpoint.parts.items():
        if part == "retention" and config.unet is None:
            continue  # it is checked when it is laid over its model
        expected = expected_weights(config, part)
        if part == "unet" and overlay:
            expected = {name: outline for name, outline in expected.items() if is_temporal(name) and name in state}
        try:
            check_keys(state, expected, part)
        except CheckpointError as error:
            raise CheckpointError(f"{checkpoint.name}: {error}") from error
    return checkpoint


def check_keys(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], part: str) -> None:
    """Raise `CheckpointError` unless `state` has exactly the names and shapes of `expected`, and floating-point types."""
    state = LazyTensors.of(state)
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    problems = [
        f"{len(keys)} {word}, {shown(keys[0])} for one" for word, keys in (("missing", missing), ("unknown", extra)) if keys
    ]
    for name in sorted(expected.keys() & state.keys()):
        outline = state.outline(name)
        if outline.shape != expected[name].shape:
            problems.append(f"{name!r} has shape {tuple(outline.shape)} and not {tuple(expected[name].shape)}")
            break
        if not outline.is_floating_point():
            problems.append(f"{name!r} holds {outline.dtype}, which is no type of weights".replace("torch.", ""))
            break
    if problems:
        raise CheckpointError(f"the weights of {part!r} do not fit the configuration: {'; '.join(problems)}")
