"""Whatever holds a model, opened: our own file, or a diffusers folder or hub snapshot of a text-to-video model."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from torch import Tensor

from .autoencoder import SCALE_FACTOR
from .checkpoint import Checkpoint, CheckpointError, diffusers_vae, load_checkpoint
from .config import MODELSCOPE, AutoencoderConfig, ConfigError, ModelConfig, TextConfig, UNetConfig
from .diffusion import BETA_END, BETA_START, TIMESTEPS
from .tensor_files import LazyTensors

# What these settings must be, where a folder's configuration names them: our layers know nothing else.
_UNET_FIXED = {"act_fn": "silu", "downsample_padding": 1, "mid_block_scale_factor": 1, "time_cond_proj_dim": None}
_SCHEDULE_FIXED = {
    "beta_schedule": "scaled_linear", "beta_start": BETA_START, "beta_end": BETA_END, "num_train_timesteps": TIMESTEPS,
    "rescale_betas_zero_snr": False,
}  # fmt: skip
_VAE_FIXED = {"act_fn": "silu", "scaling_factor": SCALE_FACTOR, "in_channels": 3, "out_channels": 3}
_VARIANTS = ("", ".fp16", ".bf16")


def open_model(path: str | Path, pickles: bool = False) -> Checkpoint:
    """The model in a file or folder; raises `CheckpointError` with what is wrong and what to do.

    With `pickles` a folder's weights may be PyTorch's own files too; they are read as weights only.
    """
    path = Path(path)
    return _open_folder(path, pickles) if path.is_dir() else load_checkpoint(path)


def model_folder(path: Path) -> Path | None:
    """The folder that has `unet/config.json`: `path` itself, or in a hub cache the snapshot that `refs/main` names."""
    if (path / "unet" / "config.json").is_file():
        return path
    reference = path / "refs" / "main"
    named = [path / "snapshots" / reference.read_text().strip()] if reference.is_file() else []
    found = [p for p in (*named, *sorted(path.glob("snapshots/*"))) if (p / "unet" / "config.json").is_file()]
    return found[0] if found else None


def _open_folder(path: Path, pickles: bool) -> Checkpoint:
    folder = model_folder(path)
    if folder is None:
        raise CheckpointError(
            f"{path.name}: this folder has no unet/config.json, so it is no diffusers model. Give the folder that holds "
            "unet, text_encoder and vae."
        )
    unet = _read_table(folder / "unet", "UNet3DConditionModel")
    parts = {"unet": _weights(folder / "unet", "diffusion_pytorch_model", pickles)}
    text_encoder = vae = None
    if (folder / "text_encoder").is_dir():
        text_encoder = _text_config(_read_table(folder / "text_encoder", "CLIPTextModel"), folder / "tokenizer")
        parts["text_encoder"] = _weights(folder / "text_encoder", "model", pickles).renamed(_text_name)
    if (folder / "vae").is_dir():
        vae = _configured(AutoencoderConfig, _read_table(folder / "vae", "AutoencoderKL"), _VAE_FIXED, "vae", layout="kl")
        parts["vae"] = diffusers_vae(_weights(folder / "vae", "diffusion_pytorch_model", pickles), vae)
    config = ModelConfig(
        unet=_configured(UNetConfig, unet, _UNET_FIXED, "unet"),
        retention=None,
        text_encoder=text_encoder,
        vae=vae,
        prediction_type=_prediction_type(folder / "scheduler" / "scheduler_config.json"),
        sampling=MODELSCOPE.sampling,
    )
    return Checkpoint(config, parts)


def _read_table(folder: Path, expected: str) -> dict:
    """A part's config.json, which must be that of the `expected` class."""
    path = folder / "config.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        given = table.get("_class_name") or (table.get("architectures") or [expected])[0]
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: this is no readable configuration ({error}). Get the file again.") from error
    if not given.startswith(expected):
        raise CheckpointError(
            f"{path}: this is a {given}, DreamVideo takes a {expected}. Text-to-video models of ModelScope's kind have one."
        )
    return table


def _configured(cls, table: dict, fixed: dict, part: str, **more):
    """Our configuration out of diffusers'; a setting that our layers do not have raises `CheckpointError`."""
    for name, value in fixed.items():
        if table.get(name, value) != value:
            raise CheckpointError(f"{part}/config.json: {name} is {table[name]!r}; DreamVideo has {value!r} only")
    names = {f.name for f in fields(cls)} & table.keys()
    try:
        given = {k: tuple(table[k]) if isinstance(table[k], list) else table[k] for k in names}
        return cls(**given, **more)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{part}/config.json: {error}. Get the file again, or take another model.") from error


def _text_config(table: dict, tokenizer: Path) -> TextConfig:
    """transformers writes the pad token of its defaults; the token that pads stands with the tokenizer."""
    try:
        token = json.loads((tokenizer / "special_tokens_map.json").read_text(encoding="utf-8"))["pad_token"]
    except (OSError, ValueError, KeyError):
        token = "!" if table.get("hidden_size") == 1024 else None  # Stable Diffusion 2 pads so
    token = token.get("content") if isinstance(token, dict) else token
    settings = {k: v for k, v in table.items() if k != "pad_token_id"}
    more = {"pad_token_id": 0} if token == "!" else {}
    return _configured(TextConfig, settings, {}, "text_encoder", **more)


def _prediction_type(path: Path) -> str:
    if not path.is_file():
        return "epsilon"
    table = json.loads(path.read_text(encoding="utf-8"))
    for name, value in _SCHEDULE_FIXED.items():
        if table.get(name, value) != value:
            raise CheckpointError(f"{path.parent.name}/{path.name}: {name} is {table[name]!r}; DreamVideo has {value!r} only")
    return table.get("prediction_type", "epsilon")


def _weights(folder: Path, stem: str, pickles: bool) -> LazyTensors:
    """A part's weights: in one file or in shards, full precision before half."""
    for variant in _VARIANTS:
        single, index = folder / f"{stem}{variant}.safetensors", folder / f"{stem}.safetensors.index{variant}.json"
        if single.is_file():
            return _tensors([single])
        if index.is_file():
            return _tensors([folder / name for name in sorted(_shards(index))])
    # diffusers and transformers call their pickles by different names.
    found = [p for v in _VARIANTS for p in (folder / f"{stem}{v}.bin", folder / f"pytorch_model{v}.bin") if p.is_file()]
    if found and pickles:
        return LazyTensors.of(read_pickle(found[0]))
    advice = (
        f"{found[0].name} can run code when it is read: `dreamvideo convert` makes a safe file of it" if found else "get it"
    )
    raise CheckpointError(f"{folder.parent.name}/{folder.name}: there is no {stem}.safetensors; {advice}.")


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file, read as weights only: code in it is refused, not run."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except (RuntimeError, ValueError, EOFError, OSError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path.name}: this is no PyTorch file of weights alone ({str(error).splitlines()[0]}). Get it again, or get "
            "the .safetensors file."
        ) from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    tensors = {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path.name}: there are no named tensors in this file. Get the model's weights.")
    return tensors


def _shards(index: Path) -> set[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: the list of shards is damaged ({error}). Get the file again.") from error
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: the shard {name!r} is not beside it. Get the missing file.")
    return names


def _tensors(paths: list[Path]) -> LazyTensors:
    try:
        return LazyTensors.of_files(paths)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{paths[0].parent}: a weights file cannot be read ({error}). Get it again.") from error


def _text_name(name: str) -> str | None:
    """Newer versions of transformers have dropped the prefix; what embeds positions by number or projects is not used."""
    if name.endswith("position_ids") or name.startswith("text_projection"):
        return None
    return name if name.startswith("text_model.") else f"text_model.{name}"
