"""The network that ComfyUI calls: the primary U-Net and the retention branch, for batches of clips."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ops import cast_bias_weight, uncast_bias_weight
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...dreamvideo_core.common.batches import Batch, map_tensors, select
from ...dreamvideo_core.media.images import white_image
from ...dreamvideo_core.models.config import ModelConfig
from ...dreamvideo_core.models.image_conditions import ImageConditions, Resampler, image_latents
from ...dreamvideo_core.models.layers import Operations, RunAttention, run_attention
from ...dreamvideo_core.models.retention import ImageRetention
from ...dreamvideo_core.models.unet import Encoding, Residuals, UNet
from ...dreamvideo_core.sampling.guided_step import Passes
from ...dreamvideo_core.sampling.reuse import Row
from ...dreamvideo_core.sampling.schedule import in_interval
from .cuda_graphs import passes_of
from .patches import patches_attention, say_idle_patches
from .pictures import check_window
from .sharing import RUN_KEY, shared_encoding, shared_images, shared_residuals, uncompiled


class Gain(NamedTuple):
    """How much an image counts, and between which shares of the noise schedule."""

    strength: float
    start: float
    end: float

    def at(self, timestep: float) -> float:
        return self.strength if in_interval(timestep, self.start, self.end) else 0.0


class RowTags(NamedTuple):
    """What is to be known of a row of the batch that its tensors do not show: rows with other tags have nothing in common."""

    clip: int
    gain: Gain
    hooks: int | None  # which hooks change the weights for it
    area: tuple[int, ...] | None = None

    def within(self, area: tuple[int, ...]) -> RowTags:
        """The tags of a part of the row."""
        return self._replace(area=area)


class Pictures(NamedTuple):
    """What a model that sees pictures by itself is given of them, for R rows."""

    latents: Tensor  # of the picture and, where there is one, of the last; (R, 1 or 2, C, h, w)
    hidden: Tensor  # CLIP vision's last hidden state, (R, N, E)
    grey: Tensor  # that of a grey picture, (R, N, E)
    fps: Tensor  # (R,)


@dataclass(frozen=True)
class Rows:
    """A batch of R clips, one row each: frames (R, T, C, H, W), timesteps (R,), text (R, N, D).

    `images` (R, 3, 8H, 8W) are for a retention branch, `pictures` for a model that sees them by itself.
    """

    frames: Tensor
    timesteps: Tensor
    text: Tensor
    images: Tensor | None
    pictures: Pictures | None
    tags: list[RowTags]
    times: list[float]  # the timesteps as numbers

    @property
    def num_frames(self) -> int:
        return self.frames.shape[1]

    @torch.compiler.disable
    def encoding_inputs(self, gains: list[float]) -> list[Row]:
        """What the encoding of each row is made from."""
        if self.pictures is None:
            keys, tensors = self._keys(self.times), (self.text, self.frames)
        else:
            keys, tensors = self._keys(zip(self.times, gains, strict=True)), (self.text, self.frames, *self.pictures)
        return [Row(key, of_row) for key, of_row in zip(keys, zip(*tensors, strict=True), strict=True)]

    @torch.compiler.disable
    def residual_inputs(self, gains: list[float], places: list[Hashable]) -> tuple[list[Row], list[Row]]:
        """What the residuals of each row are made from: what is the same in all steps, and that with what is not."""
        keys = zip(self._keys(gains), places, strict=True)
        in_all_steps = [Row(*row) for row in zip(keys, zip(self.text, self.images, strict=True), strict=True)]
        rows = zip(in_all_steps, self.times, self.frames, strict=True)
        return in_all_steps, [Row((row.key, time), (*row.tensors, frames)) for row, time, frames in rows]

    def _keys(self, more: Iterable[Hashable]) -> list[Hashable]:
        where = self.frames.device, self.frames.dtype
        return [(tags.clip, tags.hooks, tags.area, value, *where) for tags, value in zip(self.tags, more, strict=True)]

    @torch.compiler.disable
    def select(self, rows: list[int]) -> Rows:
        """These rows; nothing is copied where they are all of them, in their order."""
        if rows == list(range(len(self.tags))):
            return self
        images = None if self.images is None else self.images[rows]
        pictures = None if self.pictures is None else Pictures(*(tensor[rows] for tensor in self.pictures))
        tags, times = [self.tags[row] for row in rows], [self.times[row] for row in rows]
        return Rows(self.frames[rows], self.timesteps[rows], self.text[rows], images, pictures, tags, times)


@contextmanager
def lend(layer: nn.Module, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias as ComfyUI's own layers get them: patched, and on the device and in the precision of `x`."""
    weight, bias, stream = cast_bias_weight(layer, x, offloadable=True)
    try:
        yield weight, bias
    finally:
        uncast_bias_weight(layer, weight, bias, stream)


class HostUNet(UNet):
    """The primary U-Net with its names at the root, as LoRAs have them; the branch under `retention.`, or a `resampler.`."""

    def __init__(self, dreamvideo: ModelConfig, dtype=None, device=None, operations=None, **unet_config: Any):
        operations = Operations(operations, optimized_attention, lend, dtype=dtype, device=device)
        super().__init__(dreamvideo.unet, operations)
        self.retention = ImageRetention(dreamvideo.unet, dreamvideo.retention, operations) if dreamvideo.retention else None
        self.resampler = Resampler(dreamvideo.resampler, operations) if dreamvideo.resampler else None
        self.config, self.dtype = dreamvideo, dtype

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> HostUNet:
        """As `nn.Module.to`, which refuses channels last for weights over time: that is an order of pictures' alone."""
        if memory_format is not None:
            self._apply(lambda weight: weight.contiguous(memory_format=memory_format) if weight.ndim == 4 else weight)
        return super().to(*args, **kwargs)

    def image_map(self, image: Tensor) -> Tensor:
        return self.retention.conv_s(image)

    def retain(
        self,
        latents: Tensor,
        image_map: Tensor,
        timesteps: Tensor,
        text: Tensor,
        num_frames: int,
        run: RunAttention = run_attention,
    ) -> Residuals:
        return self.retention(latents, image_map, timesteps, text, num_frames, run)

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
        picture_latents: Tensor | None = None,
        picture_hidden: Tensor | None = None,
        picture_grey: Tensor | None = None,
        picture_fps: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if RUN_KEY in transformer_options:
            say_idle_patches(transformer_options, self.attention_blocks, transformer_options[RUN_KEY].idle)
        dreamvideo_rows = _tags(dreamvideo_rows, len(context))
        num_frames = _num_frames(len(x), dreamvideo_rows, num_video_frames)
        timesteps, pictures = timesteps[::num_frames], None
        if picture_latents is not None:
            pictures = Pictures(picture_latents, picture_hidden, picture_grey, picture_fps)
            check_window(num_frames, self.config.resampler.num_frames)
        rows = Rows(
            frames=x.unflatten(0, (-1, num_frames)),
            timesteps=timesteps,
            text=context,
            images=retention_image,
            pictures=pictures,
            tags=dreamvideo_rows,
            times=timesteps.tolist(),
        )
        call = _Call(self, rows, passes_of(self, transformer_options, x), transformer_options)
        return call.passes.decode(call.encoding(), None if self.retention is None else call.residuals())


@dataclass(frozen=True)
class _Call:
    """One call of a U-Net, and what it shares with others.

    Where other nodes have patched attention, all rows are evaluated, in ComfyUI's order: patches may tell them apart.
    """

    unet: HostUNet
    rows: Rows
    passes: Passes
    options: dict[str, Any]

    @property
    def shares_rows(self) -> bool:
        return not patches_attention(self.options, self.unet.attention_blocks)

    @property
    def gains(self) -> list[float]:
        """How much each row's picture counts at its timestep."""
        return [tags.gain.at(time) for tags, time in zip(self.rows.tags, self.rows.times, strict=True)]

    @uncompiled
    def encoding(self) -> Encoding:
        gains = self.gains

        @uncompiled
        def encode(numbers: list[int]) -> Encoding:
            rows = self.rows.select(numbers)
            inputs = rows.frames.flatten(0, 1), rows.timesteps, rows.text, rows.num_frames
            if rows.pictures is None:
                return self.passes.encode(*inputs)
            return self.passes.encode(*inputs, self._image_conditions(rows, [gains[number] for number in numbers]))

        if not self.shares_rows:
            return encode(self._all())
        return shared_encoding(self.rows.encoding_inputs(gains), self.options, encode)

    @uncompiled
    def _image_conditions(self, rows: Rows, gains: list[float]) -> ImageConditions:
        """What the encoder sees of pictures: their latents, and gain tokens(picture) + (1 - gain) tokens(grey) for each row."""
        config, (latents, hidden, grey, fps) = self.unet.config.unet, rows.pictures
        inputs = [(row, given) for row, gain in enumerate(gains) for given in _given(gain)]
        views = torch.cat([(hidden if given else grey)[row : row + 1] for row, given in inputs])

        @uncompiled
        def resample(numbers: list[int]) -> Tensor:
            return self.unet.resampler(views[numbers])

        keys = [Row(("tokens", views.device, views.dtype), (view,)) for view in views]
        tokens = resample(list(range(len(views)))) if self._hooked() else shared_images(keys, self.options, resample)
        return ImageConditions(
            _latents_over_time(config.image_latents, latents, rows.num_frames),
            _mixed(tokens, inputs, gains),
            fps if config.fps_embedding else None,
        )

    @uncompiled
    def residuals(self) -> Residuals:
        gains = self.gains

        @uncompiled
        def retain(numbers: list[int]) -> Residuals:
            if not self.shares_rows and numbers != self._all():
                return _selected(self._retain(self.rows, gains), numbers, len(gains))
            return self._retain(self.rows.select(numbers), [gains[number] for number in numbers])

        if self._hooked():
            return retain(self._all())
        in_all_steps, in_this_step = self.rows.residual_inputs(gains, self._places())
        return shared_residuals(in_all_steps, in_this_step, self.options, retain)

    def _places(self) -> list[Hashable]:
        """What sets each row apart from others that stand for the same clip."""
        window = tuple(getattr(self.options.get("context_window"), "index_list", ()))
        conditions = tuple(self.options.get("cond_or_uncond", ()))
        return [window if self.shares_rows else (window, conditions, number) for number in self._all()]

    @uncompiled
    def _retain(self, rows: Rows, gains: list[float]) -> Residuals:
        """gain R(image) + (1 - gain) R(white) for every row; a gain of 0 or 1 needs one pass of the branch."""
        both = not set(gains) <= {0, 1} and not self.shares_rows  # patches count on as many rows for every condition
        inputs = [(row, given) for row, gain in enumerate(gains) for given in ((True, False) if both else _given(gain))]
        chosen, maps = rows.select([row for row, _ in inputs]), self._maps(rows, inputs)
        made = self.passes.retain(chosen.frames.flatten(0, 1), maps, chosen.timesteps, chosen.text, rows.num_frames)
        return _mixed(made, inputs, gains)

    @uncompiled
    def _maps(self, rows: Rows, inputs: list[tuple[int, bool]]) -> Tensor:
        """conv_s for every input of the branch: of its row's image where that is given, of white where not."""
        images = rows.images
        white = white_image(1, *images.shape[-2:], device=images.device, dtype=images.dtype)
        pictures = torch.cat([images[row : row + 1] if given else white for row, given in inputs])
        if self._hooked():
            return self.unet.image_map(pictures)

        @uncompiled
        def conv_s(numbers: list[int]) -> Tensor:
            return self.unet.image_map(pictures[numbers])

        return shared_images([Row((images.device, images.dtype), (picture,)) for picture in pictures], self.options, conv_s)

    def _all(self) -> list[int]:
        return list(range(len(self.rows.tags)))

    def _hooked(self) -> bool:
        """Whether hooks change the weights from step to step: then a run has nothing to keep."""
        return any(tags.hooks is not None for tags in self.rows.tags)


_selected, _latents_over_time = map(torch.compiler.disable, (select, image_latents))


def _given(gain: float) -> tuple[bool, ...]:
    """Whether a row of this gain needs what is made of its picture (True), of the empty one (False), or both."""
    return tuple(given for given, share in ((True, gain), (False, 1 - gain)) if share)


@torch.compiler.disable
def _mixed(made: Batch, inputs: list[tuple[int, bool]], gains: list[float]) -> Batch:
    """gain x (made of the picture) + (1 - gain) x (made of the empty one) for every row; `inputs` say what each was made of."""
    if set(gains) <= {0, 1}:
        return made  # one for every row
    shares = [gains[row] if given else 1 - gains[row] for row, given in inputs]

    def mix(tensor: Tensor) -> Tensor:
        clips = tensor.unflatten(0, (len(inputs), -1)) * tensor.new_tensor(shares).view(-1, *[1] * tensor.ndim)
        index = torch.tensor([row for row, _ in inputs], device=tensor.device)
        return clips.new_zeros(len(gains), *clips.shape[1:]).index_add(0, index, clips).flatten(0, 1)

    return map_tensors(mix, made)


def _tags(tags: list[RowTags], rows: int) -> list[RowTags]:
    """Those of the `rows` that this call has.

    Other nodes may call the model with some of its conditions: they cut every tensor, but no list. Where all conditions have
    the same tags, it is known which those are; else raises ValueError.
    """
    if len(tags) == rows:
        return tags
    if len(tags) % rows or tags != tags[:rows] * (len(tags) // rows):
        raise ValueError(
            f"another node calls the model with {rows} texts, but gives {len(tags)} entries of dreamvideo_rows. It must cut "
            "that list as it cuts the tensors: one entry a clip and condition. Take the node away, or set batch_size and "
            "strength of Retention Encode to 1."
        )
    return tags[:rows]


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
