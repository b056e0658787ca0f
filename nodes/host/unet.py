"""The network that ComfyUI calls: the primary U-Net and the retention branch, for batches of clips."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ops import cast_bias_weight, uncast_bias_weight
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...dreamvideo_core.config import ModelConfig
from ...dreamvideo_core.diffusion import in_interval
from ...dreamvideo_core.images import white_image
from ...dreamvideo_core.layers import LayerFactory
from ...dreamvideo_core.model import Encoding, ImageRetention, Residuals, UNet
from .graphs import passes_of
from .patches import patched_join, warn_of_idle_patches
from .sharing import shared_encoding, shared_maps, shared_residuals, uncompiled


class Gain(NamedTuple):
    """How much an image counts, and between which shares of the noise schedule."""

    strength: float
    start: float
    end: float

    def at(self, timestep: float) -> float:
        return self.strength if in_interval(timestep, self.start, self.end) else 0.0


class RowTags(NamedTuple):
    """What a row of the batch is made of: equal text tags mean equal encodings, equal image tags equal maps."""

    clip: int
    text: Hashable
    image: Hashable | None
    gain: Gain

    def within(self, area: tuple[int, ...]) -> RowTags:
        """The tags of a part of the row."""
        return self._replace(text=(self.text, area), image=None if self.image is None else (self.image, area))


class ResidualTag(NamedTuple):
    """What the branch's residuals of a row depend on within a step."""

    image: Hashable
    text: Hashable
    gain: float


@dataclass(frozen=True)
class Rows:
    """A batch of R clips, one row each: frames (R, T, C, H, W), timesteps (R,), text (R, N, D), images (R, 3, 8H, 8W)."""

    frames: Tensor
    timesteps: Tensor
    text: Tensor
    images: Tensor | None
    tags: list[RowTags]

    @property
    def num_frames(self) -> int:
        return self.frames.shape[1]

    def text_tags(self) -> list[Hashable]:
        # Texts are repeated to a common length within a call, so the length belongs to the tag.
        return [(tags.text, self.text.shape[1], self.frames.device) for tags in self.tags]

    def image_tags(self) -> list[Hashable | None]:
        return [None if tags.image is None else (tags.image, self.frames.device) for tags in self.tags]

    @torch.compiler.disable
    def select(self, rows: list[int]) -> Rows:
        """These rows; nothing is copied where they are all of them, in their order."""
        if rows == list(range(len(self.tags))):
            return self
        images = None if self.images is None else self.images[rows]
        return Rows(self.frames[rows], self.timesteps[rows], self.text[rows], images, [self.tags[row] for row in rows])


@contextmanager
def lend(layer: nn.Module, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias as ComfyUI's own layers get them: patched, and on the device and in the precision of `x`."""
    weight, bias, stream = cast_bias_weight(layer, x, offloadable=True)
    try:
        yield weight, bias
    finally:
        uncast_bias_weight(layer, weight, bias, stream)


class HostUNet(UNet):
    """The primary U-Net with its names at the root, as LoRAs have them, and the branch under `retention.`."""

    def __init__(self, dreamvideo: ModelConfig, dtype=None, device=None, operations=None, **unet_config: Any):
        make = LayerFactory(operations, optimized_attention, lend, dtype=dtype, device=device)
        super().__init__(dreamvideo.unet, make)
        self.retention = ImageRetention(dreamvideo.unet, dreamvideo.retention, make) if dreamvideo.retention else None
        self.config, self.dtype = dreamvideo, dtype

    def image_map(self, image: Tensor) -> Tensor:
        return self.retention.conv_s(image)

    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals:
        return self.retention(latents, image_map, timesteps, text, num_frames)

    @uncompiled
    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, control=None, transformer_options={}, **kwargs):  # noqa: B006
        """ComfyUI's calling convention: `x` (R T) C H W, `timesteps` (R T,), `context` (R, N, D) for R rows of clips."""
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, transformer_options, **kwargs)

    @uncompiled
    def _forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        control: dict | None,
        transformer_options: dict,
        *,
        num_video_frames: int,
        dreamvideo_rows: list[RowTags],
        retention_image: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        warn_of_idle_patches(transformer_options)
        num_frames = _num_frames(len(x), dreamvideo_rows, num_video_frames)
        rows = Rows(
            frames=x.unflatten(0, (-1, num_frames)),
            timesteps=timesteps[::num_frames],
            text=context,
            images=retention_image,
            tags=dreamvideo_rows,
        )
        encoding = self._encoding(rows, transformer_options)
        residuals = None if self.retention is None else self._residuals(rows, transformer_options)
        passes = passes_of(self, transformer_options)
        if passes is not self:
            return passes.decode(encoding, residuals)
        return self.decode(encoding, residuals, patched_join(transformer_options))

    @uncompiled
    def _encoding(self, rows: Rows, options: dict) -> Encoding:
        passes = passes_of(self, options)

        def encode(some: list[int]) -> Encoding:
            chosen = rows.select(some)
            return passes.encode(chosen.frames.flatten(0, 1), chosen.timesteps, chosen.text, chosen.num_frames)

        return shared_encoding(rows.text_tags(), options, encode)

    @uncompiled
    def _residuals(self, rows: Rows, options: dict) -> Residuals:
        now = float(rows.timesteps[0])
        gains = [tags.gain.at(now) for tags in rows.tags]
        tags = [
            None if image is None else ResidualTag(image, text, gain)
            for image, text, gain in zip(rows.image_tags(), rows.text_tags(), gains, strict=True)
        ]

        @uncompiled
        def retain(some: list[int]) -> Residuals:
            return self._retain(rows.select(some), [gains[row] for row in some], options)

        return shared_residuals(tags, options, now, retain, rows.num_frames)

    @uncompiled
    def _retain(self, rows: Rows, gains: list[float], options: dict) -> Residuals:
        """gain R(image) + (1 - gain) R(white) for every row; a gain of 0 or 1 needs one pass of the branch."""
        shares = {(row, given): gain if given else 1 - gain for row, gain in enumerate(gains) for given in (True, False)}
        inputs = [key for key, share in shares.items() if share != 0]
        places = [row for row, _ in inputs]
        chosen, maps = rows.select(places), self._maps(rows, inputs, options)
        frames = chosen.frames.flatten(0, 1)
        made = passes_of(self, options).retain(frames, maps, chosen.timesteps, chosen.text, rows.num_frames)
        if set(gains) <= {0, 1}:
            return made
        scale = frames.new_tensor([shares[key] for key in inputs])
        index = torch.tensor(places, device=frames.device)

        def mix(residual: Tensor) -> Tensor:
            clips = residual.unflatten(0, (len(inputs), -1)) * scale.view(-1, *[1] * residual.ndim)
            return clips.new_zeros(len(gains), *clips.shape[1:]).index_add(0, index, clips).flatten(0, 1)

        return Residuals(tuple(map(mix, made.skips)), mix(made.mid))

    @uncompiled
    def _maps(self, rows: Rows, inputs: list[tuple[int, bool]], options: dict) -> Tensor:
        """conv_s for every input of the branch: of its row's image where that is given, of white where not."""
        images, tags = rows.images, rows.image_tags()
        white = white_image(1, *images.shape[-2:], device=images.device, dtype=images.dtype)
        pictures = torch.cat([images[row : row + 1] if given else white for row, given in inputs])
        white_tag = ("white", *images.shape[-2:], images.device)
        picture_tags = [tags[row] if given or tags[row] is None else white_tag for row, given in inputs]
        return shared_maps(picture_tags, options, pictures, self.image_map)


def _num_frames(frames: int, rows: list[RowTags], num_video_frames: int) -> int:
    """The length of each clip in a batch of `frames`; raises ValueError where the clips do not come out even."""
    if not any(row.clip for row in rows):
        # One clip at a time: a context window may hold more frames than the conditioning knows of.
        num_video_frames = frames // len(rows)
    if frames != len(rows) * num_video_frames:
        raise ValueError(
            f"{frames} frames for {len(rows)} clips of {num_video_frames}. Context windows work on one clip at a time: set "
            "batch_size of Retention Encode to 1."
        )
    return num_video_frames
