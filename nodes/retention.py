"""RetentionEncode: prepares the image and attaches it to the conditioning."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..dreamvideo_core.common.checks import DOWNSCALE, InputError, check_finite, check_interval, check_number, check_size
from ..dreamvideo_core.media.images import FITS, fit_image
from .host.clip_vision import hidden_states
from .host.conditions import (
    END_KEY,
    FPS_KEY,
    FRAMES_KEY,
    GREY_KEY,
    HIDDEN_KEY,
    IMAGE_KEY,
    LATENTS_KEY,
    START_KEY,
    STRENGTH_KEY,
    with_values,
)
from .host.execution import intermediate_device
from .images import from_comfy, to_comfy
from .loading import CATEGORY

_END_IMAGE = "Models that draw between two pictures (DynamiCrafter 512 interp) need both; disconnect end_image for others."
MAX_SIZE = 4096
MAX_FRAMES = 1024


def size_inputs() -> list[io.Input]:
    """Width, height and fit."""
    return [
        io.Int.Input(
            "width", default=128, min=DOWNSCALE, max=MAX_SIZE, step=DOWNSCALE,
            tooltip="Width of the clip in pixels, a multiple of 8. The shipped model was trained from 64 to 256.",
        ),
        io.Int.Input(
            "height", default=128, min=DOWNSCALE, max=MAX_SIZE, step=DOWNSCALE,
            tooltip="Height of the clip in pixels, a multiple of 8. The shipped model was trained from 64 to 256.",
        ),
        io.Combo.Input(
            "fit", options=list(FITS), default="crop",
            tooltip="How the picture meets the clip's size. crop: fill it and cut what is over. pad: keep the "
            "whole picture and repeat its border. stretch: ignore the aspect ratio.",
        ),
    ]  # fmt: skip


class RetentionEncode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        width, height, fit = size_inputs()
        return io.Schema(
            node_id="RetentionEncode",
            display_name="Retention Encode",
            category=CATEGORY,
            description="Gives the picture to the model: the clip will begin with it. Without a picture the clip is "
            "made from the text alone.",
            search_aliases=["image to video", "i2v conditioning", "dreamvideo image"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="What should happen, from CLIP Text Encode."),
                io.Conditioning.Input(
                    "negative", tooltip="What guidance moves away from; an empty text is what the model was trained with."
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The first frame. Leave it unconnected for text to video. Of several pictures each clip gets "
                    "one if there are as many as clips, else all get the first. Transparent parts are laid on white.",
                ),
                width,
                height,
                io.Int.Input(
                    "frames", default=8, min=1, max=MAX_FRAMES,
                    tooltip="Frames of one clip. The model was trained on 8; other numbers work less well.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64,
                    tooltip="How many clips to make at once, each from noise of its own.",
                ),
                fit,
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="How much the picture counts. 1 is what the model was trained with, 0 is text only.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="The share of the noise schedule after which the picture begins to count.",
                ),
                io.Float.Input(
                    "end", default=1.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="The share of the noise schedule after which the picture counts no more.",
                ),
                io.Vae.Input(
                    "vae", optional=True,
                    tooltip="The model's VAE. Clips then keep the picture's brightness better: the noise that they begin from "
                    "holds a little of the picture's mean, as in training. Unconnected: noise alone. Models that see the "
                    "picture by CLIP (DynamiCrafter) need it.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="For models that see the picture by CLIP (DynamiCrafter): the CLIP_VISION of Load DreamVideo, or "
                    "Load CLIP Vision. Leave it unconnected for other models: with it the latent stays empty, without the "
                    "picture's mean.",
                ),
                io.Int.Input(
                    "fps", optional=True, default=0, min=0, max=1000,
                    tooltip="The frame rate that DynamiCrafter is told; 0 is the model's own. 512 (24) and 1024 (10): less is "
                    "more motion. 256 takes the stride between frames (3): more is more motion. Other models do not use it.",
                ),
                io.Image.Input(
                    "end_image", optional=True,
                    tooltip="The last frame, for models that draw between two pictures (DynamiCrafter 512 interp). The same "
                    "picture as image makes a loop.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="The text with the picture."),
                io.Conditioning.Output(
                    display_name="negative",
                    tooltip="The negative text with the picture, for stock samplers. Our own sampler and guider take the "
                    "picture off where they need to.",
                ),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="What the sampler starts from, frames times clips: empty, or with a VAE the mean of the picture.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, positive, negative, width: int, height: int, frames: int, batch_size: int, fit: str,
        strength: float, start: float, end: float, image: torch.Tensor | None = None, vae=None, clip_vision=None,
        fps: int = 0, end_image: torch.Tensor | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        check_size("width", width, MAX_SIZE)
        check_size("height", height, MAX_SIZE)
        check_interval("start", start, "end", end)
        check_number("frames", frames, 1, MAX_FRAMES)
        check_number("batch_size", batch_size, 1)
        check_number("strength", strength, 0)
        values: dict = {FRAMES_KEY: frames}
        shape = batch_size, frames, 4, height // DOWNSCALE, width // DOWNSCALE
        samples = torch.zeros(shape, device=intermediate_device())
        if end_image is not None and image is None:
            raise InputError("end_image is connected, but image is not; connect the picture that the clip begins with.")
        if image is not None:
            fitted = fit_image(from_comfy(_one_or_each(image, batch_size)), height, width, fit)
            values |= {IMAGE_KEY: fitted, STRENGTH_KEY: strength, START_KEY: start, END_KEY: end}
            last = None
            if end_image is not None:
                last = fit_image(from_comfy(_one_or_each(end_image, batch_size), "end_image"), height, width, fit)
            if clip_vision is not None:
                values |= {FPS_KEY: fps, **_views(clip_vision, vae, fitted, last)}
            elif last is not None:
                raise InputError(f"end_image is connected, but clip_vision is not. {_END_IMAGE}")
            elif vae is not None and strength and not start:  # else the picture has no effect on the first step
                samples += _encode(vae, fitted).mean((-2, -1), keepdim=True)[:, None]
        return io.NodeOutput(
            with_values(positive, values),
            with_values(negative, values),
            {"samples": samples.flatten(0, 1)},
        )


def _views(clip_vision, vae, image: torch.Tensor, last: torch.Tensor | None) -> dict:
    """What models that see the picture by CLIP are given of it, and of the last picture: views and latents."""
    *hidden, grey = hidden_states(clip_vision, image).split(1)
    values = {HIDDEN_KEY: torch.cat(hidden), GREY_KEY: grey}
    if vae is None:
        return values
    ends = [_encode(vae, picture) for picture in (image, last) if picture is not None]
    return {**values, LATENTS_KEY: torch.stack(torch.broadcast_tensors(*ends), dim=1)}


def _encode(vae, image: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, H, W) to latents (B, 4, h, w)."""
    latents = vae.encode(to_comfy(image))
    if latents.ndim != 4 or latents.shape[1] != 4:
        raise InputError(
            f"vae makes latents of shape {tuple(latents.shape)}; allowed: (pictures, 4, height, width), as the VAE of Load "
            "DreamVideo makes them. Connect that one."
        )
    check_finite("vae's output", latents, "its weights overflow, or are damaged: take the VAE in fp32 or bf16")
    return latents


def _one_or_each(image: torch.Tensor, clips: int) -> torch.Tensor:
    return image if len(image) == clips else image[:1]
