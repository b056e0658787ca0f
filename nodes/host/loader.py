"""A checkpoint file to ComfyUI's MODEL, CLIP and VAE."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.utils
import torch
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from ...dreamvideo_core.checkpoint import Checkpoint, check_keys, load_checkpoint
from ...dreamvideo_core.config import TextConfig
from . import sharing
from .model import DreamVideoModel, DreamVideoSupport

log = logging.getLogger("DreamVideo")

WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def load_all(path: Path, weight_dtype: str) -> tuple:
    """(MODEL, CLIP, VAE); a part that the file lacks is None, and said in the log."""
    checkpoint = load_checkpoint(path)
    for part in checkpoint.lacks():
        log.warning("%s has no %s", path.name, _IN_WORDS[part])
    model = load_patcher(path, weight_dtype, checkpoint=checkpoint) if "unet" in checkpoint.parts else None
    clip = _load_clip(checkpoint) if "text_encoder" in checkpoint.parts else None
    vae = _load_vae(checkpoint) if "vae" in checkpoint.parts else None
    return model, clip, vae


_IN_WORDS = {
    "unet": "U-Net: it cannot sample",
    "retention": "retention branch: text to video only",
    "text_encoder": "text encoder: use a CLIP loader",
    "vae": "VAE: use a VAE loader",
}


def load_patcher(
    path: Path, weight_dtype: str, disable_dynamic: bool = False, checkpoint: Checkpoint | None = None
) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model alone; ComfyUI calls this again when it wants the weights anew."""
    checkpoint = checkpoint or load_checkpoint(path)
    state = {**checkpoint.parts["unet"]}
    state |= {f"retention.{name}": tensor for name, tensor in checkpoint.parts.get("retention", {}).items()}
    load_device = comfy.model_management.get_torch_device()
    support = DreamVideoSupport(checkpoint.config)
    dtype = _choose_dtype(support, state, weight_dtype, load_device)
    initial_device = comfy.model_management.unet_inital_load_device(comfy.utils.calculate_parameters(state), dtype)
    model = DreamVideoModel(support, device=initial_device)
    check_keys(state, model.diffusion_model.state_dict(), "unet and retention")
    # Looked up late: ComfyUI puts another class here on some devices.
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device = comfy.model_management.unet_offload_device()
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    model.load_model_weights(state, "", assign=getattr(patcher, "is_dynamic", lambda: False)())
    patcher.cached_patcher_init = (load_patcher, (path, weight_dtype))
    sharing.install(patcher)
    return patcher


def _choose_dtype(support: DreamVideoSupport, state: dict[str, Tensor], weight_dtype: str, device: torch.device) -> torch.dtype:
    supported = support.supported_inference_dtypes
    dtype = WEIGHT_DTYPES[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    support.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, device, supported))
    return dtype


def _load_clip(checkpoint: Checkpoint) -> comfy.sd.CLIP:
    state = {f"clip_l.transformer.{name}": tensor for name, tensor in checkpoint.parts["text_encoder"].items()}
    target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, _text_model(checkpoint.config.text_encoder))
    return comfy.sd.CLIP(target, state_dict=state, parameters=comfy.utils.calculate_parameters(state))


def _text_model(config: TextConfig) -> type:
    """ComfyUI's own CLIP text model in another size, with the stock tokenizer."""
    table = {**vars(config), "eos_token_id": 49407, "layer_norm_eps": 1e-5}

    class TextModel(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            super().__init__(
                device, textmodel_json_config=table, dtype=dtype, return_projected_pooled=False, model_options=model_options
            )

    class Model(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            super().__init__(device, dtype, model_options, clip_model=TextModel)

    return Model


def _load_vae(checkpoint: Checkpoint) -> comfy.sd.VAE:
    vae = comfy.sd.VAE(sd=dict(checkpoint.parts["vae"]))
    vae.throw_exception_if_invalid()
    return vae
