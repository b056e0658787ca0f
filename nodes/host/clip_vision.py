"""ComfyUI's CLIP vision models: pictures to embeddings."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

_CLIP = "clip_vision_model"
_AT_ONCE = 16  # frames: ComfyUI reserves no memory for what the model computes


def image_embeddings(clip_vision: ClipVisionModel, images: Tensor) -> Tensor:
    """The embeddings (B, D), in CLIP's space of texts and pictures, of ComfyUI's images (B, H, W, 3): their middle square.

    Raises ValueError for a vision model that is not a CLIP.
    """
    if clip_vision.model_type != _CLIP:
        raise ValueError(
            f"clip_vision is a model of type {clip_vision.model_type}; allowed: CLIP, such as CLIP-ViT-L or CLIP-ViT-H, from "
            "Load CLIP Vision."
        )
    embeddings = []
    for part in images.split(_AT_ONCE):
        comfy.model_management.throw_exception_if_processing_interrupted()
        embeddings.append(clip_vision.encode_image(part)["image_embeds"])
    found = torch.cat(embeddings)
    if not found.isfinite().all():
        raise ValueError(
            "clip_vision gives embeddings that are no numbers (NaN or infinite): its file is damaged, or its weights overflow; "
            "load another in Load CLIP Vision."
        )
    return found
