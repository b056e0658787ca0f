"""Previews of a clip while it is sampled: moving in the pack's nodes, frames side by side in stock samplers."""

from __future__ import annotations

import io
import logging
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

from ...dreamvideo_core.common.checks import DOWNSCALE
from ...dreamvideo_core.media.images import to_uint8
from ...dreamvideo_core.models.autoencoder import Autoencoder
from ...dreamvideo_core.sprites import render_batch, sample_clip
from ...dreamvideo_core.sprites.scene import seeded
from .messages import log

# The largest moving preview: with one byte per pixel it is below 300 kB.
_SIDE, _FRAMES = 128, 16
_MILLISECONDS = 125  # per frame of the clip
_SHARE = 0.05  # of the sampling time that previews may take
_FIRST_COST = 0.01  # seconds: an estimate until the first preview is measured
_SCENES = 8  # to fit the colours of previews on


class ClipLatents(comfy.latent_formats.SD15):
    """Stable Diffusion 1's latents with previews of all frames side by side.

    `vae` holds the weights of a `taesd` autoencoder, whose latents have other colours.
    """

    def __init__(self, vae: Mapping[str, Tensor] | None = None):
        super().__init__()
        self.latent_rgb_factors_reshape = side_by_side
        if vae is not None:
            self.latent_rgb_factors, self.latent_rgb_factors_bias = _rgb_factors(vae)


def side_by_side(latents: Tensor) -> Tensor:
    """Latents (T, C, h, w) as one picture (1, C, rows h, columns w); the rest of the last row is 0."""
    columns = math.ceil(len(latents) ** 0.5)
    rows = math.ceil(len(latents) / columns)
    blank = latents.new_zeros(rows * columns - len(latents), *latents.shape[1:])
    return rearrange(torch.cat([latents, blank]), "(r c) k h w -> 1 k (r h) (c w)", r=rows)


@torch.no_grad()
def _rgb_factors(vae: Mapping[str, Tensor]) -> tuple[list[list[float]], list[float]]:
    """The linear map from latents to their pixels' mean RGB in [-1, 1], by least squares over some scenes.

    Plain colours would not do: their latents are unlike those of pictures.
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
    """An animated PNG; ComfyUI's server calls `save` as it does with Pillow's images."""

    def __init__(self, frames: list[Image.Image], milliseconds: float):
        """Encodes the PNG now: an exception in `save` would end the server's messages."""
        file = io.BytesIO()
        first, *others = _in_one_palette(frames)
        first.save(file, "PNG", save_all=True, append_images=others, duration=milliseconds, loop=0, compress_level=1)
        self.png = file.getvalue()

    def save(self, file: io.BytesIO, **options: Any) -> None:
        file.write(self.png)


def _in_one_palette(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames in one palette of 256 colours: one byte per pixel bounds the file's size."""
    width, height = frames[0].size
    column = Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        column.paste(frame, (0, number * height))
    column = column.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    return [column.crop((0, top, width, top + height)) for top in range(0, column.height, height)]


def preview_callback(model, steps: int) -> Callable[[int, Tensor, Tensor, int], None]:
    """The sampler's callback for progress, and for previews if the user wants them. Previews never raise into sampling."""
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    if not isinstance(previewer, latent_preview.Latent2RGBPreviewer):
        return latent_preview.prepare_callback(model, steps)
    bar, previews = comfy.utils.ProgressBar(steps), _Previews(model.model.latent_format)

    def callback(step: int, denoised: Tensor, noisy: Tensor, total: int) -> None:
        bar.update_absolute(step + 1, total, previews.after_step(denoised))

    return callback


class _Previews:
    """The previews of one run. A step has none if that would exceed the previews' share of the time."""

    def __init__(self, latent_format: comfy.latent_formats.LatentFormat):
        self.latent_format = latent_format
        self.begin, self.spent, self.cost = time.perf_counter(), 0.0, _FIRST_COST  # seconds

    def after_step(self, latents: Tensor) -> tuple | None:
        """A preview of latents (T, C, h, w) for ComfyUI's progress bar, or None if it is not time or it fails."""
        if self.spent + self.cost > _SHARE * (time.perf_counter() - self.begin):
            return None
        try:
            on_cpu = latents.detach().float().cpu()  # not timed: this waits for the sampling step
            begin = time.perf_counter()
            preview = ("PNG", self._moving(on_cpu), None)
            self.cost = time.perf_counter() - begin
            self.spent += self.cost
            return preview
        except Exception as error:
            log.warning("this run has no previews: %s", error, exc_info=log.isEnabledFor(logging.DEBUG))
            self.spent = math.inf  # no further previews
            return None

    def _moving(self, latents: Tensor) -> MovingPreview:
        shown = min(len(latents), _FRAMES)
        milliseconds = _MILLISECONDS * len(latents) / shown
        latents = latents[[number * len(latents) // shown for number in range(shown)]]
        factors = torch.tensor(self.latent_format.latent_rgb_factors)
        bias = torch.tensor(self.latent_format.latent_rgb_factors_bias or [0.0, 0.0, 0.0])
        pixels = torch.einsum("tkhw,kc->thwc", latents, factors) + bias
        height, width = pixels.shape[1:3]
        scale = _SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        frames = [Image.fromarray(frame.numpy()).resize(size, Image.Resampling.BILINEAR) for frame in to_uint8(pixels)]
        # A preview replaces the one before, so it begins at the frame that one has come to: late frames are shown as well.
        begin = int(1000 * time.monotonic() / milliseconds) % shown
        return MovingPreview(frames[begin:] + frames[:begin], milliseconds)
