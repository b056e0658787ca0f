"""RetentionEncode: prepares the image and attaches it to the conditioning."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..dreamvideo_core.common.checks import DOWNSCALE, InputError, check_interval, check_number, check_size
from ..dreamvideo_core.media.images import FITS, fit_image
from .host.conditions import END_KEY, FRAMES_KEY, IMAGE_KEY, START_KEY, STRENGTH_KEY, with_values
from .host.execution import intermediate_device
from .images import from_comfy, to_comfy
from .loading import CATEGORY

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
                    "holds a little of the picture's mean, as in training. Unconnected: noise alone.",
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
        strength: float, start: float, end: float, image: torch.Tensor | None = None, vae=None,
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
        if image is not None:
            fitted = fit_image(from_comfy(_one_or_each(image, batch_size)), height, width, fit)
            values |= {IMAGE_KEY: fitted, STRENGTH_KEY: strength, START_KEY: start, END_KEY: end}
            if vae is not None and strength and not start:  # else the picture has no effect on the first step
                samples += _mean_latents(vae, fitted)
        return io.NodeOutput(
            with_values(positive, values),
            with_values(negative, values),
            {"samples": samples.flatten(0, 1)},
        )


def _mean_latents(vae, image: torch.Tensor) -> torch.Tensor:
    """The mean latents (B, 1, 4, 1, 1) of pictures (B, 3, H, W). Samplers add noise to them, as `Pipeline` does."""
    latents = vae.encode(to_comfy(image))
    if latents.ndim != 4 or latents.shape[1] != 4:
        raise InputError(
            f"vae makes latents of shape {tuple(latents.shape)}; allowed: (pictures, 4, height, width), as the VAE of Load "
            "DreamVideo makes them. Connect that one."
        )
    return latents.mean((-2, -1), keepdim=True)[:, None]


def _one_or_each(image: torch.Tensor, clips: int) -> torch.Tensor:
    return image if len(image) == clips else image[:1]
