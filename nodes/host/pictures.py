"""Pictures of models that see them by themselves (`UNetConfig.sees_image`): what such a model asks of the conditioning.

In every evaluation it is given the picture's latents, and CLIP vision's view of the picture. Where guidance takes the picture
away, that is the view of grey.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from ...dreamvideo_core.common.checks import DOWNSCALE, InputError
from ...dreamvideo_core.models.config import ModelConfig
from .conditions import FPS_KEY, GREY_KEY, HIDDEN_KEY, IMAGE_KEY, LATENTS_KEY, ClipMaps, ClipRows, Clips, repeat_rows


def check_takes_image(config: ModelConfig, image: Tensor | None, latents: Tensor | None = None) -> None:
    """Raise `InputError` for an image, or for a last picture among `latents`, that the model has no use for."""
    if latents is not None and latents.shape[1] > 1 and config.unet.image_latents != "ends":
        raise InputError(
            "end_image is connected to Retention Encode, but this model takes no last picture. Disconnect it, or load a model "
            "that draws between two pictures, such as DynamiCrafter 512 interp."
        )
    if image is not None and not config.takes_image:
        raise InputError(
            "an image is connected to Retention Encode, but this model has no retention branch: it makes video from "
            "text only. Disconnect the image, or load a checkpoint with a branch."
        )


def check_window(frames: int, num_frames: int) -> None:
    """Raise `InputError` for a context window of other than the model's number of frames."""
    if frames != num_frames:
        raise InputError(
            f"a context window has {frames} frames; this model makes clips of {num_frames} frames and takes no windows. Take "
            "them away; Video Chain makes longer clips."
        )


def picture_conds(
    config: ModelConfig, options: Mapping[str, Any], clips: Clips, process_latents: Callable[[Tensor], Tensor]
) -> dict[str, comfy.conds.CONDRegular]:
    """A condition's `options` as the U-Net's inputs; `InputError` for what is missing, or what the model was not made for."""
    _check_given(options)
    latents, grey, hidden = options[LATENTS_KEY], options[GREY_KEY], options.get(HIDDEN_KEY)
    _check_fit(config, latents, grey, clips, options["noise"])
    fps = int(options.get(FPS_KEY) or config.sampling.fps)

    def rows(tensor: Tensor, what: str) -> Tensor:
        return repeat_rows(tensor, clips.count, what).to(options["device"])

    return {
        "picture_latents": ClipMaps(rows(process_latents(latents), "the picture's latents")),
        "picture_hidden": ClipRows(rows(grey if hidden is None else hidden, "the view of the picture")),
        "picture_grey": ClipRows(rows(grey, "the view of grey")),
        "picture_fps": ClipRows(rows(torch.tensor([fps]), "fps")),
    }


def _check_given(options: Mapping[str, Any]) -> None:
    if options.get(LATENTS_KEY) is None and options.get(IMAGE_KEY) is None:
        raise InputError(
            "this model makes a clip from a picture, and there is none. Connect image, vae and clip_vision of Retention Encode."
        )
    if options.get(GREY_KEY) is None or (options.get(IMAGE_KEY) is not None and options.get(HIDDEN_KEY) is None):
        raise InputError(
            "clip_vision of Retention Encode is not connected; this model sees the picture by CLIP. Connect the CLIP_VISION of "
            "Load DreamVideo, or of Load CLIP Vision with CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors (models/clip_vision)."
        )
    if options.get(LATENTS_KEY) is None:
        raise InputError(
            "vae of Retention Encode is not connected; this model takes the picture's latents. Connect the VAE of Load "
            "DreamVideo."
        )


def _check_fit(config: ModelConfig, latents: Tensor, grey: Tensor, clips: Clips, noise: Tensor) -> None:
    frames, width = config.resampler.num_frames, config.resampler.embedding_dim
    if grey.shape[-1] != width:
        raise InputError(
            f"clip_vision gives {grey.shape[-1]} channels, this model takes {width}. Connect a CLIP vision model of its kind: "
            "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors has 1280."
        )
    if clips.num_frames != frames:
        raise InputError(
            f"frames is {clips.num_frames}; this model makes clips of {frames} frames, context windows or not. Set frames to "
            f"{frames}; Video Chain makes longer clips."
        )
    if latents.shape[1] == 1 and config.unet.image_latents == "ends":
        raise InputError(
            "this model goes from a first to a last picture, and end_image of Retention Encode is not connected. Connect the "
            "last picture, or the first again for a loop."
        )
    if latents.shape[-2:] != noise.shape[-2:]:
        picture, clip = ([n * DOWNSCALE for n in tensor.shape[:-3:-1]] for tensor in (latents, noise))
        raise InputError(
            f"the picture is {picture[0]} x {picture[1]}, but the latent stands for {clip[0]} x {clip[1]} pixels. Use the "
            "latent output of the same Retention Encode."
        )
