"""Image embeddings by ComfyUI's CLIP vision models."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

from ...dreamvideo_core.common.checks import InputError, check_finite
from ...dreamvideo_core.models.image_encoder import grey_image, prepare

_CLIP = "clip_vision_model"
_BATCH = 16  # frames: ComfyUI reserves no memory for this model's activations


def hidden_states(clip_vision: ClipVisionModel, pictures: Tensor) -> Tensor:
    """CLIP vision's last hidden state (B + 1, N, E) of pictures (B, 3, H, W) in [-1, 1], and of a grey one last."""
    _check_kind(clip_vision)
    size = clip_vision.image_size
    pixels = torch.cat([prepare(pictures, size), prepare(grey_image(size, device=pictures.device), size)])
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    hidden = [clip_vision.model(pixel_values=part.to(clip_vision.load_device))[0] for part in pixels.split(_BATCH)]
    return _check_finite(torch.cat(hidden).float().to(comfy.model_management.intermediate_device()))


def image_embeddings(clip_vision: ClipVisionModel, images: Tensor) -> Tensor:
    """CLIP's projected embeddings (B, D) of the middle squares of ComfyUI's images (B, H, W, 3).

    Raises `InputError` for a vision model that is not a CLIP.
    """
    _check_kind(clip_vision)
    embeddings = []
    for part in images.split(_BATCH):
        comfy.model_management.throw_exception_if_processing_interrupted()
        embeddings.append(clip_vision.encode_image(part)["image_embeds"])
    return _check_finite(torch.cat(embeddings))


def _check_kind(clip_vision: ClipVisionModel) -> None:
    if clip_vision.model_type != _CLIP:
        raise InputError(
            f"clip_vision is a model of type {clip_vision.model_type}; allowed: CLIP, such as CLIP-ViT-L or CLIP-ViT-H, from "
            "Load CLIP Vision."
        )


def _check_finite(output: Tensor) -> Tensor:
    advice = "its file is damaged, or its weights overflow: load another in Load CLIP Vision."
    check_finite("the output of clip_vision", output, advice)
    return output
