"""What is seen while a clip is made: all its frames, moving in our own nodes, side by side in stock samplers."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import comfy.latent_formats
import comfy.utils
import latent_preview
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from ...dreamvideo_core.autoencoder import Autoencoder
from ...dreamvideo_core.config import DOWNSCALE
from ...dreamvideo_core.images import to_uint8
from ...dreamvideo_core.sprites import render_batch, sample_clip
from ...dreamvideo_core.sprites.scene import seeded
from .messages import log

_SIDE = 128  # of the moving preview, in pixels: encoding it must cost next to nothing
_MILLISECONDS = 125
_SCENES = 8  # that the colours of previews are learned from


class ClipLatents(comfy.latent_formats.SD15):
    """Stable Diffusion 1's latents, whose frames previews show side by side; `vae` gives colours of its own."""

    def __init__(self, vae: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.latent_rgb_factors_reshape = side_by_side
        if vae is not None:
            self.latent_rgb_factors, self.latent_rgb_factors_bias = _rgb_factors(vae)


def side_by_side(latents: Tensor) -> Tensor:
    """(T, C, h, w) as one picture (1, C, rows h, columns w); what is left of the last row is empty."""
    columns = math.ceil(len(latents) ** 0.5)
    rows = math.ceil(len(latents) / columns)
    blank = latents.new_zeros(rows * columns - len(latents), *latents.shape[1:])
    return rearrange(torch.cat([latents, blank]), "(r c) k h w -> 1 k (r h) (c w)", r=rows)


@torch.no_grad()
def _rgb_factors(vae: Mapping[str, Tensor]) -> tuple[list[list[float]], list[float]]:
    """The linear map from latents to the mean RGB of their pixels, in [-1, 1], that is nearest to the truth over some scenes.

    Not over plain colours: the latents of those have little in common with a picture's.
    """
    autoencoder = Autoencoder().eval()
    autoencoder.load_state_dict({name: tensor.float() for name, tensor in vae.items()})
    clips = [sample_clip(seeded("train", 0, number)) for number in range(_SCENES)]
    pictures = render_batch(clips, num_frames=1)[:, 0]
    latents = rearrange(autoencoder.encode(pictures) * ClipLatents().scale_factor, "n c h w -> (n h w) c")
    colours = rearrange(F.avg_pool2d(pictures, DOWNSCALE), "n c h w -> (n h w) c")
    known = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
    solution = torch.linalg.lstsq(known, colours).solution
    return solution[:-1].tolist(), solution[-1].tolist()


class MovingPreview:
    """A clip as an animation; ComfyUI's server calls `save` as it would a picture's."""

    def __init__(self, frames: list[Image.Image]):
        self.frames = frames

    def save(self, file: io.BytesIO, **options: Any) -> None:
        """Write an animated WebP, or what can be written: an error here would end the server's messages."""
        start = file.tell()
        try:
            self.frames[0].save(
                file, "WEBP", save_all=True, append_images=self.frames[1:], duration=_MILLISECONDS, loop=0, quality=70, method=0
            )
        except Exception:
            log.debug("no moving preview", exc_info=True)
            file.seek(start)
            file.truncate()
            self.frames[0].save(file, "JPEG")


def preview_callback(model, steps: int) -> Callable[[int, Tensor, Tensor, int], None]:
    """The sampler's callback: progress, and a preview as the user has set it. It never raises into sampling."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    if not isinstance(previewer, latent_preview.Latent2RGBPreviewer):
        return latent_preview.prepare_callback(model, steps)
    bar = comfy.utils.ProgressBar(steps)

    def callback(step: int, denoised: Tensor, noisy: Tensor, total: int) -> None:
        bar.update_absolute(step + 1, total, _preview(model.model.latent_format, denoised))

    return callback


def _preview(latent_format: comfy.latent_formats.LatentFormat, latents: Tensor) -> tuple | None:
    try:
        factors = torch.tensor(latent_format.latent_rgb_factors)
        bias = torch.tensor(latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
        pixels = torch.einsum("tkhw,kc->thwc", latents.detach().float().cpu(), factors) + bias
        scale = max(1, _SIDE // max(pixels.shape[1:3]))
        pictures = [Image.fromarray(frame.numpy()) for frame in to_uint8(pixels)]
        size = (pictures[0].width * scale, pictures[0].height * scale)
        # Each preview replaces the one before: it begins where that one has come to, or quick steps show no late frame.
        begin = int(1000 * time.monotonic() / _MILLISECONDS) % len(pictures)
        moving = [p.resize(size, Image.Resampling.BILINEAR) for p in pictures[begin:] + pictures[:begin]]
        return ("WEBP", MovingPreview(moving), None)
    except Exception:
        log.debug("no preview", exc_info=True)
        return None
