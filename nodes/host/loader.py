"""A checkpoint file to ComfyUI's MODEL, CLIP, VAE and CLIP_VISION."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders.sd2_clip
import comfy.utils
import torch
from comfy.cli_args import args
from comfy.clip_vision import ClipVisionModel
from comfy.supported_models_base import ClipTarget
from torch import Tensor

from ...dreamvideo_core.models.config import MODELSCOPE, AutoencoderConfig, TextConfig
from ...dreamvideo_core.models.kernels.fused import lay_out_weights
from ...dreamvideo_core.models.precision import best_dtype
from ...dreamvideo_core.models.retention import is_untrained
from ...dreamvideo_core.models.text_encoder import END_TOKEN, START_TOKEN
from ...dreamvideo_core.sampling.cuda_graphs import available as graphs_available
from ...dreamvideo_core.weights.checkpoint import LACKING, Checkpoint, CheckpointError
from ...dreamvideo_core.weights.sources import open_model
from . import sharing
from .cuda_graphs import install as install_graphs
from .files import last_change
from .in_use import still_in_use
from .model import DreamVideoModel, DreamVideoSupport
from .saving import INNER_PARTS, KL_GROUPS

# Text encoders for which ComfyUI has classes of its own: what their weights are called, and the class.
_STABLE_DIFFUSION_TEXT = {
    TextConfig(): ("l", comfy.sd1_clip.SD1ClipModel),
    MODELSCOPE.text_encoder: ("h", comfy.text_encoders.sd2_clip.SD2ClipModel),
}
Part = TypeVar("Part", comfy.sd.CLIP, comfy.sd.VAE)
WEIGHT_DTYPES: dict[str, torch.dtype | None] = {
    "default": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8_e4m3fn": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


class Source(NamedTuple):
    """Where a model comes from; `variant` is for a file that does not say which model it is (`open_model`)."""

    path: Path
    overlay: Path | None = None
    variant: str | None = None

    def state(self) -> tuple:
        """What changes where the files do."""
        files = tuple((file, *last_change(file)) for file in (self.path, self.overlay) if file is not None)
        return files if self.variant is None else (*files, self.variant)


class Loaded(NamedTuple):
    """What a checkpoint gives; a part that it lacks is None. `shortcomings` says what that means, and what has no effect."""

    model: comfy.model_patcher.ModelPatcher
    clip: comfy.sd.CLIP | None
    vae: comfy.sd.VAE | None
    clip_vision: ClipVisionModel | None
    shortcomings: list[str]


def load_all(source: Source, weight_dtype: str, cuda_graphs: bool = False) -> Loaded:
    """All parts of a checkpoint; raises CheckpointError for a file that is none.

    A part that is loaded already and still in use is given again: the model and the text encoder as clones, which keep what
    nodes lay over them to themselves. With `cuda_graphs` passes become graphs, which want weights that ComfyUI does not move:
    no dynamic memory.
    """
    checkpoint = _open(source)
    shortcomings = [*checkpoint.remarks, *checkpoint.shortcomings()]
    if is_untrained(checkpoint.parts.get("retention")):
        shortcomings.append("the retention branch is untrained: the image has no effect yet")
    files = source.state()
    device = comfy.model_management.get_torch_device()
    graphed = cuda_graphs and graphs_available(device)
    if cuda_graphs and not graphed:
        shortcomings.append("cuda_graphs: no effect without an NVIDIA GPU")

    def load_clip() -> comfy.sd.CLIP:
        return _renewable(_load_clip(checkpoint), _clip_patcher, source)

    def load_vae() -> comfy.sd.VAE:
        return _renewable(_load_vae(checkpoint), _vae_patcher, source)

    def load_model() -> comfy.model_patcher.ModelPatcher:
        model = load_patcher(source, weight_dtype, disable_dynamic=graphed, checkpoint=checkpoint)
        if graphed:
            install_graphs(model)
            lay_out_weights(model.model.diffusion_model, model.load_device)
        return model

    clip = vae = clip_vision = None
    if "text_encoder" in checkpoint.parts:
        clip = _lent(still_in_use(("clip", files, comfy.model_management.text_encoder_device()), load_clip))
    if "vae" in checkpoint.parts:
        vae = still_in_use(("vae", files, comfy.model_management.vae_device()), load_vae)
    if "image_encoder" in checkpoint.parts:
        clip_vision = still_in_use(("clip_vision", files), lambda: _load_clip_vision(checkpoint))
    model = still_in_use(("model", files, device, weight_dtype, graphed), load_model).clone()
    checkpoint.release()
    return Loaded(model, clip, vae, clip_vision, shortcomings)


def _lent(clip: comfy.sd.CLIP) -> comfy.sd.CLIP:
    """A clone that keeps `clip` alive, as its own clones do; a clone of a model does so by itself."""
    lent = clip.clone()
    lent.patcher.set_attachments("dreamvideo_lent_by", clip)
    return lent


def _renewable(part: Part, load: Callable[..., comfy.model_patcher.ModelPatcher], source: Source) -> Part:
    """Have ComfyUI call `load` where it wants the part's weights anew."""
    part.patcher.cached_patcher_init = (load, (source,))
    return part


def _open(source: Source) -> Checkpoint:
    path = source.path
    checkpoint = open_model(path, variant=source.variant)
    if source.overlay is not None:
        checkpoint = checkpoint.overlaid(open_model(source.overlay))
    if not {"unet", "retention"} & checkpoint.parts.keys():
        raise CheckpointError(f"{path.name} has no {LACKING['unet']}. Choose a model that has one.")
    if checkpoint.is_overlay():
        raise CheckpointError(
            f"{path.name} holds trained layers without the U-Net that they belong to. Choose that model as checkpoint, and "
            f"{path.name} as overlay."
        )
    return checkpoint


def load_patcher(
    source: Source,
    weight_dtype: str,
    disable_dynamic: bool = False,
    checkpoint: Checkpoint | None = None,
) -> comfy.model_patcher.ModelPatcher:
    """The diffusion model alone; ComfyUI calls this again when it wants the weights anew."""
    checkpoint = checkpoint or _open(source)
    state = {**checkpoint.parts["unet"]}
    for part in INNER_PARTS:
        state |= {f"{part}.{name}": tensor for name, tensor in checkpoint.parts.get(part, {}).items()}
    load_device = comfy.model_management.get_torch_device()
    support = DreamVideoSupport(checkpoint.config, _own_vae(checkpoint))
    dtype = _choose_dtype(support, state, weight_dtype, load_device)
    initial_device = comfy.model_management.unet_inital_load_device(comfy.utils.calculate_parameters(state), dtype)
    model = DreamVideoModel(support, device=initial_device)
    # Looked up late: ComfyUI puts another class here on some devices.
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device = comfy.model_management.unet_offload_device()
    patcher = patcher_class(model, load_device=load_device, offload_device=offload_device)
    model.load_model_weights(state, "", assign=getattr(patcher, "is_dynamic", lambda: False)())
    patcher.cached_patcher_init = (load_patcher, (source, weight_dtype))
    files = [(file.name, *last_change(file)) for file in (source.path, source.overlay) if file is not None]
    model.source = [*files, *([source.variant] if source.variant else []), str(dtype)]
    sharing.install(patcher)
    return patcher


def _own_vae(checkpoint: Checkpoint) -> Mapping[str, Tensor] | None:
    """The weights of an autoencoder that is not Stable Diffusion's."""
    config = checkpoint.config.vae
    return checkpoint.parts["vae"] if config is not None and config.layout == "taesd" else None


def _choose_dtype(support: DreamVideoSupport, state: dict[str, Tensor], weight_dtype: str, device: torch.device) -> torch.dtype:
    """The weights' precision; it is set in `support`, with the one that layers cast them to."""
    supported, parameters = support.supported_inference_dtypes, comfy.utils.calculate_parameters(state)
    dtype = WEIGHT_DTYPES[weight_dtype] or comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=supported, weight_dtype=comfy.utils.weight_dtype(state)
    )
    cast = comfy.model_management.unet_manual_cast(dtype, device, supported)
    if _cpu_takes_bfloat16(device, parameters):
        if weight_dtype == "default" and dtype == torch.float32:
            dtype = torch.bfloat16
        if dtype == torch.bfloat16:
            cast = None
    support.set_inference_dtype(dtype, cast)
    return dtype


def _cpu_takes_bfloat16(device: torch.device, parameters: int) -> bool:
    """Whether a model of so many parameters computes in bfloat16 on a CPU.

    ComfyUI takes it for slow on every CPU, chooses float32 and casts weights in bfloat16 to it, layer by layer.
    """
    if device.type != "cpu" or args.force_fp32 or args.fp32_unet:  # which a person has asked for
        return False
    return best_dtype(device, parameters) == torch.bfloat16


def _load_clip(checkpoint: Checkpoint, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """ComfyUI's own CLIP: Stable Diffusion 1's or 2's where the model has theirs, the same class in another size else."""
    config = checkpoint.config.text_encoder
    name, model = _STABLE_DIFFUSION_TEXT.get(config) or ("l", _text_model(config))
    pad = functools.partial(
        comfy.sd1_clip.SDTokenizer,
        pad_with_end=config.pad_token_id == END_TOKEN,
        embedding_size=config.hidden_size,
        embedding_key=f"clip_{name}",
    )
    target = ClipTarget(functools.partial(comfy.sd1_clip.SD1Tokenizer, clip_name=name, tokenizer=pad), model)
    state = {**checkpoint.parts["text_encoder"]}
    if name == "h":
        state |= _idle_layer(state, config.num_hidden_layers)
    state = {f"clip_{name}.transformer.{key}": tensor for key, tensor in state.items()}
    parameters = comfy.utils.calculate_parameters(state)
    return comfy.sd.CLIP(target, state_dict=state, parameters=parameters, disable_dynamic=disable_dynamic)


def _idle_layer(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    """A layer of zeros, which changes nothing: ComfyUI's class has one layer more than Stable Diffusion 2 uses.

    Its weights would be whatever memory holds, and a person may ask for the last layer.
    """
    before, idle = f"text_model.encoder.layers.{number - 1}.", f"text_model.encoder.layers.{number}."
    return {name.replace(before, idle): torch.zeros_like(state[name]) for name in state if name.startswith(before)}


def _clip_patcher(source: Source, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The text encoder alone; ComfyUI calls this when it wants the weights anew."""
    return _load_clip(_open(source), disable_dynamic).patcher


def _text_model(config: TextConfig) -> type:
    table = {**vars(config), "eos_token_id": END_TOKEN, "layer_norm_eps": 1e-5}
    tokens = {"start": START_TOKEN, "end": END_TOKEN, "pad": config.pad_token_id}

    class TextModel(comfy.sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            super().__init__(
                device,
                textmodel_json_config=table,
                dtype=dtype,
                special_tokens=tokens,
                return_projected_pooled=False,
                model_options=model_options,
            )

    class Model(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006
            super().__init__(device, dtype, model_options, clip_model=TextModel)

    return Model


def _load_vae(checkpoint: Checkpoint) -> comfy.sd.VAE:
    config = checkpoint.config.vae
    widths = config.block_out_channels
    if config.layout == "kl" and (config.norm_num_groups != KL_GROUPS or any(width % widths[0] for width in widths)):
        raise CheckpointError(
            f"{checkpoint.name}: its VAE has norm_num_groups {config.norm_num_groups} and the widths {list(widths)}; ComfyUI's "
            f"has {KL_GROUPS} and multiples of the first width. Take a model with another VAE."
        )
    vae = comfy.sd.VAE(sd=dict(checkpoint.parts["vae"]), config=_kl_config(config) if config.layout == "kl" else None)
    vae.throw_exception_if_invalid()
    return vae


def _load_clip_vision(checkpoint: Checkpoint) -> ClipVisionModel:
    """ComfyUI's CLIP vision. Its class takes a file of settings: 0.16.3 knows no other way."""
    settings = {"model_type": "clip_vision_model", "num_channels": 3, **vars(checkpoint.config.image_encoder)}
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump(settings, file)
    try:
        clip_vision = ClipVisionModel(file.name)
    finally:
        Path(file.name).unlink()
    clip_vision.load_sd(dict(checkpoint.parts["image_encoder"]))
    return clip_vision


def _vae_patcher(source: Source, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    # `disable_dynamic` has no effect on a VAE, as in ComfyUI's own loader.
    return _load_vae(_open(source)).patcher


def _kl_config(config: AutoencoderConfig) -> dict:
    """Stable Diffusion's autoencoder in the terms of ComfyUI's class for it."""
    width = config.block_out_channels[0]
    settings = {
        "double_z": True, "z_channels": config.latent_channels, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": width,
        "ch_mult": [channels // width for channels in config.block_out_channels],
        "num_res_blocks": config.layers_per_block, "attn_resolutions": [], "dropout": 0.0,
    }  # fmt: skip
    return {"params": {"ddconfig": settings, "embed_dim": config.latent_channels}}
