"""Whatever holds a model, opened: our own file, one of DynamiCrafter's, or a text-to-video model in a diffusers folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..common.checks import InputError, shown
from ..common.json_files import read_object
from ..models.autoencoder import SCALE_FACTOR
from ..models.config import MODELSCOPE, AutoencoderConfig, ConfigError, ModelConfig, ScheduleConfig, TextConfig, UNetConfig
from .checkpoint import Checkpoint, CheckpointError, check_weights, diffusers_vae, own_checkpoint, read_file
from .diagnosis import DIFFUSERS_UNET, describe_class, describe_damage, describe_kind, is_pickle, kind_of
from .dynamicrafter import is_dynamicrafter, open_dynamicrafter
from .tensor_files import LazyTensor, LazyTensors

# What these settings must be, where a folder's configuration names them: our layers know nothing else.
_UNET_FIXED = {"act_fn": "silu", "downsample_padding": 1, "mid_block_scale_factor": 1, "time_cond_proj_dim": None}
_SCHEDULE_FIXED = {"trained_betas": None}
_VAE_FIXED = {"act_fn": "silu", "scaling_factor": SCALE_FACTOR, "in_channels": 3, "out_channels": 3}
_VARIANTS = ("", ".fp16", ".bf16")
_HOLDERS = ("state_dict", "module")  # where trainers keep the weights
_GLOBAL = re.compile(r"GLOBAL ([\w.]*\w)")  # what torch says of a class or function that it refuses to use
_LONGEST_NAME = 200
_PLAIN = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z._-]*[0-9A-Za-z_-])?")  # Windows drops dots at the end


def open_model(path: str | Path, pickles: bool = False, variant: str | None = None) -> Checkpoint:
    """The model in a file or folder; raises `CheckpointError` with what is wrong and what to do.

    With `pickles` weights may be in PyTorch's own files too; they are read as weights only. `variant` is for files of
    DynamiCrafter (`dynamicrafter.VARIANTS`) and has no effect on others, which say what they are.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, pickles)
    return open_tensors(*read_tensors(path, pickles), path.name, variant)


def read_tensors(path: Path, pickles: bool) -> tuple[LazyTensors, str | None]:
    """As `read_file`; with `pickles` of a PyTorch file too, which has no text of ours."""
    if pickles and path.is_file() and is_pickle(path):
        return pickled_tensors(path), None
    return read_file(path)


def open_tensors(tensors: LazyTensors, text: str | None, name: str, variant: str | None = None) -> Checkpoint:
    """The model in what `read_tensors` gives of a file called `name`."""
    if text is None and is_dynamicrafter(tensors):
        return open_dynamicrafter(tensors, name, variant)
    return own_checkpoint(tensors, text, name)


def model_folder(path: Path, tell: Callable[[str], None] = lambda why: None) -> Path | None:
    """The folder of a model that `path` holds, or None; raises nothing, but tells why a folder cannot be used."""
    try:
        return _find_model(path)
    except CheckpointError as error:
        tell(str(error))
        return None


def _find_model(path: Path) -> Path | None:
    """The folder that has `unet/config.json`: `path` itself, or in a hub cache the snapshot that `refs/main` names.

    Raises `CheckpointError` for a folder that cannot be read, or whose `refs/main` is not the name of a snapshot.
    """
    try:
        if _has_unet(path):
            return path
        names = _referenced(path / "refs" / "main") + sorted(snapshot.name for snapshot in path.glob("snapshots/*"))
        found = [snapshot for snapshot in (path / "snapshots" / name for name in names) if _has_unet(snapshot)]
    except OSError as error:
        raise CheckpointError(f"{path}: this folder cannot be read ({error.strerror or error})") from error
    return found[0] if found else None


def _has_unet(folder: Path) -> bool:
    return (folder / "unet" / "config.json").is_file()


def _referenced(reference: Path) -> list[str]:
    """The snapshot's name in `refs/main`, where there is that file; raises `CheckpointError` for what is no plain name."""
    if not reference.exists():
        return []
    if not reference.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{reference}: this cannot be read (it is no file). Download the model again.")
    with reference.open("rb") as file:
        text = file.read(_LONGEST_NAME + 1)
    name = text.decode("ascii", errors="backslashreplace").strip()
    if not is_plain_name(name):
        raise CheckpointError(
            f"{reference}: it is {shown(name)}; allowed: the name of a folder in snapshots. Download the model again."
        )
    return [name]


def is_plain_name(name: object) -> bool:
    """Whether `name` is that of a file or folder right here, on every system: no path, no drive, nothing above."""
    return isinstance(name, str) and len(name) <= _LONGEST_NAME and _PLAIN.fullmatch(name) is not None


def _open_folder(path: Path, pickles: bool) -> Checkpoint:
    folder = _find_model(path)
    if folder is None:
        raise CheckpointError(
            f"{path.name}: this folder has no unet/config.json, so it is no diffusers model. Give the folder that holds "
            "unet, text_encoder and vae."
        )
    try:
        return check_weights(_read_folder(folder, path.name, pickles))
    except CheckpointError:
        raise
    except InputError as error:  # of a configuration, or of a tensor
        raise CheckpointError(f"{path.name}: {error}") from error


def _read_folder(folder: Path, name: str, pickles: bool) -> Checkpoint:
    unet = _read_table(folder / "unet", "UNet3DConditionModel")
    parts = {"unet": _weights(folder / "unet", "diffusion_pytorch_model", pickles)}
    if kind_of(parts["unet"]) not in (DIFFUSERS_UNET, None):
        raise CheckpointError(f"{folder / 'unet'}: {describe_kind(parts['unet'])}")
    text_encoder = vae = None
    if (folder / "text_encoder").is_dir():
        text_encoder = _text_config(folder)
        parts["text_encoder"] = _weights(folder / "text_encoder", "model", pickles).renamed(_text_name)
    if (folder / "vae").is_dir():
        table, file = _read_table(folder / "vae", "AutoencoderKL"), folder / "vae" / "config.json"
        vae = _configured(AutoencoderConfig, table, _VAE_FIXED, file, layout="kl")
        parts["vae"] = diffusers_vae(_weights(folder / "vae", "diffusion_pytorch_model", pickles), vae)
    config = ModelConfig(
        unet=_configured(UNetConfig, unet, _UNET_FIXED, folder / "unet" / "config.json"),
        retention=None,
        text_encoder=text_encoder,
        vae=vae,
        schedule=_schedule(folder / "scheduler" / "scheduler_config.json"),
        sampling=MODELSCOPE.sampling,
    )
    return Checkpoint(config, parts, name)


def _read_table(folder: Path, expected: str) -> dict:
    """A part's config.json, which must be that of the `expected` class."""
    path = folder / "config.json"
    table = read_object(path, "a configuration")
    given = table.get("_class_name") or table.get("architectures") or expected
    given = given[0] if isinstance(given, list) else given
    if not isinstance(given, str):
        raise CheckpointError(f"{path}: its class is {shown(given)}; allowed: {expected}. Get the file again.")
    if not given.startswith(expected):
        raise CheckpointError(f"{path}: {describe_class(given, expected)}")
    return table


def _configured(cls, table: dict, fixed: dict, path: Path, **more: Any):
    """Our configuration out of diffusers'; a setting that our layers do not have raises `CheckpointError`."""
    _check_fixed(table, fixed, path)
    names = {f.name for f in fields(cls)} & table.keys()
    try:
        given = {k: tuple(table[k]) if isinstance(table[k], list) else table[k] for k in names}
        return cls(**given, **more)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}. Get the file again, or take another model.") from error


def _check_fixed(table: dict, fixed: dict, path: Path) -> None:
    for name, value in fixed.items():
        if table.get(name, value) != value:
            raise CheckpointError(f"{path}: {name} is {shown(table[name])}; DreamVideo has {value!r} only")


def _text_config(folder: Path) -> TextConfig:
    """transformers writes the pad token of its defaults; the token that pads stands with the tokenizer."""
    table = _read_table(folder / "text_encoder", "CLIPTextModel")
    tokens = folder / "tokenizer" / "special_tokens_map.json"
    if tokens.is_file():
        token = read_object(tokens, "a tokenizer's table of tokens").get("pad_token")
        token = token.get("content") if isinstance(token, dict) else token
    else:
        token = "!" if table.get("hidden_size") == MODELSCOPE.text_encoder.hidden_size else None  # Stable Diffusion 2 pads so
    settings = {k: v for k, v in table.items() if k != "pad_token_id"}
    more = {"pad_token_id": 0} if token == "!" else {}
    return _configured(TextConfig, settings, {}, folder / "text_encoder" / "config.json", **more)


def _schedule(path: Path) -> ScheduleConfig:
    """The schedule that a diffusers scheduler names; what it does not say is the default.

    Its spacing of timesteps counts with zero terminal SNR alone. Older models name "leading", which leaves out the noisiest
    timesteps; they are sampled from the noisiest one here (arXiv 2305.08891, section 3.3).
    """
    if not path.is_file():
        return ScheduleConfig()
    table = read_object(path, "a schedule's configuration")
    if not table.get("rescale_betas_zero_snr"):
        table = {name: value for name, value in table.items() if name not in ("timestep_spacing", "steps_offset")}
    return _configured(ScheduleConfig, table, _SCHEDULE_FIXED, path)


def _weights(folder: Path, stem: str, pickles: bool) -> LazyTensors:
    """A part's weights: in one file or in shards, full precision before half."""
    for variant in _VARIANTS:
        single, index = folder / f"{stem}{variant}.safetensors", folder / f"{stem}.safetensors.index{variant}.json"
        if single.is_file():
            return _tensors([single])
        if index.is_file():
            return _tensors([folder / name for name in _shards(index)])
    # diffusers and transformers call their pickles by different names.
    found = [p for v in _VARIANTS for p in (folder / f"{stem}{v}.bin", folder / f"pytorch_model{v}.bin") if p.is_file()]
    if found and pickles:
        return pickled_tensors(found[0])
    advice = (
        f"{found[0].name} can run code when it is read: `dreamvideo convert` makes a safe file of it" if found else "get it"
    )
    raise CheckpointError(f"{folder.parent.name}/{folder.name}: there is no {stem}.safetensors; {advice}.")


def pickled_tensors(path: Path) -> LazyTensors:
    """The tensors of a PyTorch file, as `read_pickle` gives them. Its pages take memory until `release` lets go of them.

    Files of PyTorch before 1.6 cannot be mapped into memory: they are read once, and kept.
    """
    held = read_pickle(path)
    if not is_zipfile(path):
        return LazyTensors.of(held)
    outlines = {name: torch.empty_like(tensor, device="meta") for name, tensor in held.items()}

    def tensor(name: str) -> Tensor:
        if not held:
            held.update(read_pickle(path))
        return held[name]

    sources = {name: LazyTensor(partial(tensor, name), partial(outlines.get, name)) for name in outlines}
    return LazyTensors(sources, held.clear)


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, read as weights only: code in it is refused, not run."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # the bytes may be anything, and so may what they raise
        raise CheckpointError(f"{path.name}: {_pickle_trouble(error)} Get it again, or get the .safetensors file.") from error
    for holder in _HOLDERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(holder), dict):
            loaded = loaded[holder]
    items = loaded.items() if isinstance(loaded, dict) else ()
    tensors = {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path.name}: there are no named tensors in this file. Get the model's weights.")
    return tensors


def _pickle_trouble(error: Exception) -> str:
    """Our own words: torch advises to load such a file in a way that runs its code."""
    named = _GLOBAL.search(str(error))
    if named is None:
        return "this is no PyTorch file of weights alone, or it is damaged or cut off."
    return f"this is no PyTorch file of weights alone: it names {shown(named[1])}, which could run code, so it is not read."


def _shards(index: Path) -> list[str]:
    table = read_object(index, "a list of shards").get("weight_map")
    names = list(table.values()) if isinstance(table, dict) else []
    if not names:
        raise CheckpointError(
            f"{index}: its weight_map is {shown(table)}; allowed: a shard for every weight. Get the file again."
        )
    for name in names:
        if not is_plain_name(name) or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: the shard {shown(name)} is not beside it. Get the missing file.")
    return sorted(set(names))


def _tensors(paths: list[Path]) -> LazyTensors:
    tensors = LazyTensors.of({})
    for path in paths:
        try:
            tensors |= LazyTensors.of_files([path])
        except (SafetensorError, OSError) as error:
            what = f"{path.parent.name}/{path.name}"
            raise CheckpointError(f"{what}: this weights file cannot be read: {describe_damage(path)}") from error
    return tensors


def _text_name(name: str) -> str | None:
    """Newer versions of transformers have dropped the prefix; what embeds positions by number or projects is not used."""
    if name.endswith("position_ids") or name.startswith("text_projection"):
        return None
    return name if name.startswith("text_model.") else f"text_model.{name}"
