"""Image embeddings by ComfyUI's CLIP vision models."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ...dreamvideo_core.common.checks import InputError, check_finite

_CLIP = "clip_vision_model"
_BATCH = 16  # frames: ComfyUI reserves no memory for this model's activations


def image_embeddings(clip_vision: ClipVisionModel, images: Tensor) -> Tensor:
    """CLIP's projected embeddings (B, D) of the middle squares of ComfyUI's images (B, H, W, 3).

    Raises `InputError` for a vision model that is not a CLIP.
    """
    if clip_vision.model_type != _CLIP:
        raise InputError(
            f"clip_vision is a model of type {clip_vision.model_type}; allowed: CLIP, such as CLIP-ViT-L or CLIP-ViT-H, from "
            "Load CLIP Vision."
        )
    embeddings = []
    for batch in images.split(_BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        embeddings.append(clip_vision.encode_image(batch)["image_embeds"])
    result = torch.cat(embeddings)
    advice = "its file is damaged, or its weights overflow: load another in Load CLIP Vision."
    check_finite("the output of clip_vision", result, advice)
    return result
