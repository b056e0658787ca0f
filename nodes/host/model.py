"""DreamVideo as a native MODEL: ComfyUI's samplers, LoRA loaders, patches and memory management work on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import comfy.conds
import comfy.model_base
import comfy.model_management
import comfy.supported_models_base
from torch import Tensor

from ...dreamvideo_core.common.checks import DOWNSCALE
from ...dreamvideo_core.media.images import white_image
from ...dreamvideo_core.models.config import ModelConfig
from ...dreamvideo_core.weights.checkpoint import CONFIG_TENSOR, config_tensor
from .conditions import (
    END_KEY,
    FRAMES_KEY,
    IMAGE_KEY,
    LATENTS_KEY,
    ROWS_KEY,
    START_KEY,
    STRENGTH_KEY,
    ClipImage,
    Clips,
    ClipTags,
    ClipText,
    check_image_size,
    repeat_rows,
)
from .model_sampling import own_model_sampling, sampling_settings
from .patches import check_no_control
from .pictures import check_takes_image, picture_conds
from .previews import ClipLatents
from .saving import saved_checkpoint
from .unet import Gain, HostUNet, RowTags

# Feature maps of the top level that are in memory at once; measured, docs/full_size.md.
_MAPS_AT_THE_PEAK = 80


def _gain(kwargs: dict[str, Any]) -> Gain:
    if kwargs.get(IMAGE_KEY) is None:
        return Gain(1.0, 0.0, 1.0)  # of the white image
    return Gain(kwargs.get(STRENGTH_KEY, 1.0), kwargs.get(START_KEY, 0.0), kwargs.get(END_KEY, 1.0))


class DreamVideoModel(comfy.model_base.BaseModel):
    """Turns CONDITIONING into what the U-Net takes, and writes itself back in the pack's own file format."""

    def __init__(self, model_config: DreamVideoSupport, device=None):
        super().__init__(model_config, model_config.model_type({}), device=device, unet_model=HostUNet)
        own = own_model_sampling(model_config, self.config.schedule)
        if own is not None:
            self.model_sampling = own

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
        check_takes_image(self.config, kwargs.get(IMAGE_KEY), kwargs.get(LATENTS_KEY))
        if self.config.unet.sees_image:
            out |= picture_conds(self.config, kwargs, clips, self.process_latent_in)
        if self.config.retention is not None:
            image = self._image(kwargs, clips, noise)
            out[IMAGE_KEY] = ClipImage(image.to(kwargs["device"]))  # one device for all, or calls are split
        hooks, gain = kwargs.get("hooks"), _gain(kwargs)
        out[ROWS_KEY] = ClipTags([RowTags(clip, gain, id(hooks) if hooks else None) for clip in range(clips.count)])
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
        saved = saved_checkpoint(
            self.config, unet_state_dict, clip_state_dict or {}, vae_state_dict or {}, clip_vision_state_dict or {}
        )
        state = {f"{part}.{name}": tensor for part, tensors in saved.parts.items() for name, tensor in tensors.items()}
        return {**state, CONFIG_TENSOR: config_tensor(saved.config)}


class DreamVideoSupport(comfy.supported_models_base.BASE):
    """What ComfyUI wants to know about a model before it is made."""

    unet_extra_config: ClassVar = {}
    latent_format = ClipLatents

    def __init__(self, config: ModelConfig, vae: Mapping[str, Tensor] | None = None):
        """`vae`: the weights of an autoencoder of ours, whose latents have colours of their own in previews."""
        # FreeU reads model_channels.
        unet = config.unet
        super().__init__(
            {"dreamvideo": config, "model_channels": unet.block_out_channels[0], "in_channels": unet.latent_channels}
        )
        self.latent_format = ClipLatents(vae)
        self.sampling_settings = sampling_settings(config.schedule)

    def model_type(self, state_dict, prefix="") -> comfy.model_base.ModelType:
        types = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}
        return types[self.unet_config["dreamvideo"].schedule.prediction_type]


def _check_text(text: Tensor, width: int) -> None:
    if text.shape[-1] != width:
        raise ValueError(
            f"the text conditioning has {text.shape[-1]} channels, this model takes {width}. Encode the prompts with "
            "the CLIP output of the same Load DreamVideo."
        )
