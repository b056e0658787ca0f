"""The names of this model's layers in LoRA files, beyond ComfyUI's `lora_unet_<path with _>` and `diffusion_model.<path>`."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import comfy.lora

from .model import DreamVideoModel

_PREFIX, _SUFFIX = "diffusion_model.", ".weight"


def register() -> None:
    """Teach ComfyUI's LoRA loaders and hooks diffusers' and PEFT's names.

    ComfyUI has all models' names in one function and no way to add to it, so that function is wrapped.
    """
    known = comfy.lora.model_lora_keys_unet

    @functools.wraps(known)
    def names(model, key_map={}):  # noqa: B006
        key_map = known(model, key_map)
        if isinstance(model, DreamVideoModel):
            for key in model.state_dict():
                if key.startswith(_PREFIX) and key.endswith(_SUFFIX):
                    path = key[len(_PREFIX) : -len(_SUFFIX)]
                    key_map |= dict.fromkeys(_aliases(path), key)
        return key_map

    comfy.lora.model_lora_keys_unet = names


def _aliases(path: str) -> Iterator[str]:
    yield f"unet.{path}"
    yield f"base_model.model.{path}"
    yield f"unet.base_model.model.{path}"
    yield f"lycoris_{path.replace('.', '_')}"
    # Older versions of diffusers keep LoRAs in attention processors.
    yield f"unet.{path.replace('.to_', '.processor.to_').replace('.to_out.0', '.to_out')}"
