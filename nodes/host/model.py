"""DreamVideo as a native MODEL: ComfyUI's samplers, LoRA loaders, patches and memory management work on it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.supported_models_base
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor

from ...dreamvideo_core.autoencoder import DOWNSCALE
from ...dreamvideo_core.checkpoint import CONFIG_TENSOR, PARTS, config_tensor
from ...dreamvideo_core.config import ModelConfig, TextConfig
from ...dreamvideo_core.diffusion import BETA_END, BETA_START, TIMESTEPS, in_interval
from ...dreamvideo_core.images import white_image
from ...dreamvideo_core.layers import LayerFactory
from ...dreamvideo_core.model import Encoding, ImageRetention, Residuals, UNet
from .conditions import (
    END_KEY,
    FRAMES_KEY,
    IMAGE_KEY,
    START_KEY,
    STRENGTH_KEY,
    ClipImage,
    Clips,
    ClipTags,
    ClipText,
    check_image_size,
    repeat_rows,
)
from .patches import check_no_control, patched_join, warn_of_idle_patches
from .previews import ClipLatents
from .sharing import shared_encoding, shared_maps, shared_residuals


def _attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    return optimized_attention(query, key, value, heads)


# Feature maps of the top level that are in memory at once; measured, docs/full_size.md.
_MAPS_AT_THE_PEAK = 80


class HostUNet(UNet):
    """The primary U-Net with its names at the root, as LoRAs have them, and the branch under `retention.`."""

    def __init__(self, dreamvideo: ModelConfig, dtype=None, device=None, operations=None, **unet_config: Any):
        make = LayerFactory(operations, _attention, dtype, device)
        super().__init__(dreamvideo.unet, make)
        self.retention = ImageRetention(dreamvideo.unet, dreamvideo.retention, make) if dreamvideo.retention else None
        self.dtype = dtype

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor, control=None, transformer_options={}, **kwargs):  # noqa: B006
        """ComfyUI's calling convention: `x` (R T) C H W, `timesteps` (R T,), `context` (R, N, D) for R rows of clips."""
        wrappers = get_all_wrappers(WrappersMP.DIFFUSION_MODEL, transformer_options)
        executor = WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(x, timesteps, context, control, transformer_options, **kwargs)

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
        if not any(row.clip for row in dreamvideo_rows):
            # One clip at a time: a context window may hold more frames than the conditioning knows of.
            num_video_frames = len(x) // len(dreamvideo_rows)
        if len(x) != len(dreamvideo_rows) * num_video_frames:
            raise ValueError(
                f"{len(x)} frames for {len(dreamvideo_rows)} clips of {num_video_frames}. Context windows work on one clip at "
                "a time: set batch_size of RetentionEncode to 1."
            )
        row_timesteps = timesteps[::num_video_frames]
        frames = x.unflatten(0, (-1, num_video_frames))

        def encode(rows: list[int]) -> Encoding:
            return self.encode(frames[rows].flatten(0, 1), row_timesteps[rows], context[rows], num_video_frames)

        # Texts are repeated to a common length within a call, so the length belongs to the tag.
        text_tags = [(row.text, context.shape[1], x.device) for row in dreamvideo_rows]
        encoding = shared_encoding(text_tags, transformer_options, encode)
        residuals = None
        if self.retention is not None:
            now = float(row_timesteps[0])
            gains = [row.gain.at(now) for row in dreamvideo_rows]
            image_tags = [None if row.image is None else (row.image, x.device) for row in dreamvideo_rows]
            tags = [image and (image, *rest) for image, *rest in zip(image_tags, text_tags, gains, strict=True)]

            def retain(rows: list[int]) -> Residuals:
                of = [gains[row] for row in rows], [image_tags[row] for row in rows]
                inputs = frames[rows], row_timesteps[rows], context[rows], retention_image[rows]
                return self._retain(*inputs, *of, transformer_options)

            residuals = shared_residuals(tags, transformer_options, now, retain, num_video_frames)
        return self.decode(encoding, residuals, patched_join(transformer_options))

    def _retain(
        self, frames: Tensor, timesteps: Tensor, context: Tensor, images: Tensor, gains: list[float],
        tags: list, options: dict,
    ) -> Residuals:  # fmt: skip
        """R(white) + gain [R(image) - R(white)] for every row; a gain of 0 or 1 needs one pass of the branch."""
        count = len(gains)
        passes = [(row, True) for row in range(count) if gains[row] != 0]
        passes += [(row, False) for row in range(count) if gains[row] != 1]
        white = white_image(1, *images.shape[-2:], device=images.device, dtype=images.dtype)
        inputs = torch.cat([images[row : row + 1] if given else white for row, given in passes])
        white_tag = ("white", *images.shape[-2:], images.device)
        image_tags = [tags[row] if given or tags[row] is None else white_tag for row, given in passes]
        maps = shared_maps(image_tags, options, inputs, self.retention.conv_s)
        rows = [row for row, _ in passes]
        made = self.retention(frames[rows].flatten(0, 1), maps, timesteps[rows], context[rows], frames.shape[1])
        scale = frames.new_tensor([gains[row] if given else 1 - gains[row] for row, given in passes])
        index = torch.tensor(rows, device=frames.device)

        def mix(residual: Tensor) -> Tensor:
            clips = residual.unflatten(0, (len(passes), -1)) * scale.view(-1, *[1] * residual.ndim)
            return clips.new_zeros(count, *clips.shape[1:]).index_add(0, index, clips).flatten(0, 1)

        return Residuals(tuple(map(mix, made.skips)), mix(made.mid))


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


def _gain(kwargs: dict[str, Any]) -> Gain:
    if kwargs.get(IMAGE_KEY) is None:
        return Gain(0.0, 0.0, 1.0)
    return Gain(kwargs.get(STRENGTH_KEY, 1.0), kwargs.get(START_KEY, 0.0), kwargs.get(END_KEY, 1.0))


class DreamVideoModel(comfy.model_base.BaseModel):
    """Turns CONDITIONING into what the U-Net takes, and writes itself back in the pack's own file format."""

    def __init__(self, model_config: DreamVideoSupport, device=None):
        super().__init__(model_config, model_config.model_type({}), device=device, unet_model=HostUNet)

    @property
    def config(self) -> ModelConfig:
        return self.model_config.unet_config["dreamvideo"]

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        check_no_control(kwargs.get("control"))
        noise = kwargs["noise"]
        clips = Clips.of(noise, kwargs.get(FRAMES_KEY))
        text = kwargs["cross_attn"]
        _check_text(text, self.config.unet.cross_attention_dim)
        text = repeat_rows(text, clips.count, "the text conditioning")
        out = super().extra_conds(**kwargs)
        out["c_crossattn"] = ClipText(text)
        out[FRAMES_KEY] = comfy.conds.CONDConstant(clips.num_frames)
        image_tags: list[Any] = [None] * clips.count
        gain = _gain(kwargs)
        check_branch(self.config, kwargs.get(IMAGE_KEY))
        if self.config.retention is not None:
            image = self._image(kwargs, clips, noise)
            out[IMAGE_KEY] = ClipImage(image)
            if not kwargs.get("hooks"):  # hooks change the weights from step to step: nothing to keep
                image_tags = [(_digest(row), *_place(kwargs)) for row in image]
        text_tags = [(clip, _digest(row), *_place(kwargs)) for clip, row in enumerate(text)]
        tags = zip(range(clips.count), text_tags, image_tags, strict=True)
        out["dreamvideo_rows"] = ClipTags([RowTags(clip, text, image, gain) for clip, text, image in tags])
        return out

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping | None = None) -> float:
        """Bytes beside the weights while frames of `input_shape` (rows times frames, 4, h, w) are evaluated in one call."""
        pixels = input_shape[0] * math.prod(input_shape[2:])
        size = comfy.model_management.dtype_size(self.get_dtype_inference())
        return pixels * self.config.unet.block_out_channels[0] * size * _MAPS_AT_THE_PEAK

    def _image(self, kwargs: dict[str, Any], clips: Clips, noise: Tensor) -> Tensor:
        image = kwargs.get(IMAGE_KEY)
        if image is None:
            return white_image(clips.count, *(n * DOWNSCALE for n in noise.shape[-2:]))
        return repeat_rows(check_image_size(image, noise), clips.count, "the retention image")

    def state_dict_for_saving(self, unet_state_dict, clip_state_dict=None, vae_state_dict=None, clip_vision_state_dict=None):
        """Our own parts and names, with the configuration as a tensor: ComfyUI's savers write their own metadata."""
        parts = {
            "unet": {k: v for k, v in unet_state_dict.items() if not k.startswith("retention.")},
            "retention": {k[len("retention.") :]: v for k, v in unet_state_dict.items() if k.startswith("retention.")},
            "text_encoder": _text_state(clip_state_dict or {}, self.config.text_encoder),
            "vae": vae_state_dict or {},
        }
        # A text encoder or VAE that came from another loader is not ours to describe.
        parts = {part: tensors if getattr(self.config, part) is not None else {} for part, tensors in parts.items()}
        state = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
        lacking = {part: None for part in PARTS if not parts[part]}
        return {**state, CONFIG_TENSOR: config_tensor(replace(self.config, **lacking))}


class DreamVideoSupport(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know about a model before it is made."""

    unet_extra_config: ClassVar = {}
    sampling_settings: ClassVar = {
        "beta_schedule": "linear", "linear_start": BETA_START, "linear_end": BETA_END, "timesteps": TIMESTEPS,
    }  # fmt: skip
    latent_format = ClipLatents

    def __init__(self, config: ModelConfig, vae: Mapping[str, Tensor] | None = None):
        """`vae`: the weights of an autoencoder of ours, whose latents have colours of their own in previews."""
        # FreeU reads model_channels.
        unet = config.unet
        super().__init__({"dreamvideo": config, "model_channels": unet.block_out_channels[0], "in_channels": unet.in_channels})
        self.latent_format = ClipLatents(vae)

    def model_type(self, state_dict, prefix="") -> comfy.model_base.ModelType:
        types = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}
        return types[self.unet_config["dreamvideo"].prediction_type]


def check_branch(config: ModelConfig, image: Tensor | None) -> None:
    """Raise ValueError for an image that the model has no retention branch for."""
    if image is not None and config.retention is None:
        raise ValueError(
            "an image is connected to RetentionEncode, but this model has no retention branch: it makes video from text "
            "only. Disconnect the image, or load a checkpoint with a branch."
        )


def _check_text(text: Tensor, width: int) -> None:
    if text.shape[-1] != width:
        raise ValueError(
            f"the text conditioning has {text.shape[-1]} channels, this model takes {width}. Encode the prompts with "
            "the CLIP output of the same LoadDreamVideo."
        )


def _text_state(state: dict[str, Tensor], config: TextConfig | None) -> dict[str, Tensor]:
    """ComfyUI's CLIP weights by the names in our files, without a layer that its class has and the model has not."""
    found = (
        (re.fullmatch(r"clip_[lh]\.transformer\.(text_model\.(?:encoder\.layers\.(\d+)\.)?.+)", k), v) for k, v in state.items()
    )
    return {m[1]: v for m, v in found if m and config and int(m[2] or 0) < config.num_hidden_layers}


def _digest(tensor: Tensor) -> str:
    return hashlib.blake2b(tensor.detach().float().cpu().contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def _place(kwargs: dict[str, Any]) -> tuple:
    """What else makes rows differ: the area a condition is restricted to, and the hooks that change the weights."""
    area = kwargs.get("area")
    return tuple(area) if isinstance(area, (list, tuple)) else area, id(kwargs["hooks"]) if kwargs.get("hooks") else None
