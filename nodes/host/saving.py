"""What ComfyUI's savers write of a model: only parts that the configuration describes, so that the file can be opened again.

The connected CLIP or VAE may come from another loader. If no configuration can describe its weights, it is left out, and the
log says so.
"""

from __future__ import annotations

import re
from dataclasses import replace

from torch import Tensor

from ...dreamvideo_core.models.config import PRESETS, AutoencoderConfig, ConfigError, ModelConfig, TextConfig, VisionConfig
from ...dreamvideo_core.weights.checkpoint import Checkpoint, CheckpointError, check_weights, diffusers_vae
from ...dreamvideo_core.weights.tensor_files import LazyTensors
from .messages import log

State = dict[str, Tensor]
INNER_PARTS = ("retention", "resampler")  # parts of a file that are modules of ComfyUI's diffusion model
_TEXT = re.compile(r"clip_([lh])\.transformer\.(text_model\.(?:encoder\.layers\.(\d+)\.)?.+)")
_SD2_LAYERS = 23  # of Stable Diffusion 2's text encoder; ComfyUI's class has a 24th, which it does not use
KL_GROUPS = 32  # of group norms, fixed in ComfyUI's class for Stable Diffusion's autoencoder


def saved_checkpoint(config: ModelConfig, unet: State, clip: State, vae: State, clip_vision: State) -> Checkpoint:
    """A checkpoint from ComfyUI's state dictionaries, by our names; an empty dictionary stands for a part that is missing."""
    parts: dict[str, State] = {}
    for name, tensor in unet.items():
        part, _, rest = name.partition(".")
        part, rest = (part, rest) if part in INNER_PARTS else ("unet", name)
        parts.setdefault(part, {})[rest] = tensor
    saved = Checkpoint(replace(config, text_encoder=None, vae=None, image_encoder=None), parts)
    if clip_vision:
        saved = _with_part(saved, "image_encoder", "CLIP vision", clip_vision, [config.image_encoder, VisionConfig()])
    if clip:
        known = [config.text_encoder, TextConfig(), *(preset.text_encoder for preset in PRESETS.values())]
        saved = _with_part(saved, "text_encoder", "CLIP", _text_state(clip), known)
    if vae:
        saved = _with_part(saved, "vae", "VAE", vae, [config.vae, *_possible_configs(vae)])
    return saved


def _with_part(saved: Checkpoint, part: str, called: str, state: State, configs: list) -> Checkpoint:
    """`saved` with a part and the first of `configs` that fits its weights; without the part if none fits."""
    for config in configs:
        try:
            if config is not None:
                described = replace(saved.config, **{part: config})
                check_weights(_as_loaded(Checkpoint(described, {part: state})))
                return Checkpoint(described, {**saved.parts, part: state})
        except (CheckpointError, ConfigError):
            continue
    log.warning(
        f"Save Checkpoint: the {called} that is connected is of another kind than this model's, so it is left out of the file; "
        f"Load {called} brings it."
    )
    return saved


def _as_loaded(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as loading sees it: a VAE is written by ComfyUI's names, and loaded by diffusers'."""
    if "vae" not in checkpoint.parts:
        return checkpoint
    vae = diffusers_vae(LazyTensors.of(checkpoint.parts["vae"]), checkpoint.config.vae)
    return replace(checkpoint, parts={**checkpoint.parts, "vae": vae})


def _text_state(state: State) -> State:
    """ComfyUI's CLIP weights by our names, without Stable Diffusion 2's unused layer."""
    matches = [(_TEXT.fullmatch(name), tensor) for name, tensor in state.items()]
    found = [(match, tensor) for match, tensor in matches if match]
    return {match[2]: tensor for match, tensor in found if match[1] == "l" or int(match[3] or 0) < _SD2_LAYERS}


def _possible_configs(state: State) -> list[AutoencoderConfig]:
    """Configurations of a VAE that fit the shapes of some of its weights."""
    try:
        if "taesd_decoder.1.weight" in state:
            return [AutoencoderConfig("taesd", latent_channels=state["taesd_decoder.1.weight"].shape[1])]
        levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.down."))
        widths = tuple(state[f"encoder.down.{level}.block.0.conv2.weight"].shape[0] for level in range(levels))
        layers = len([name for name in state if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv2\.weight", name)])
        return [AutoencoderConfig("kl", state["post_quant_conv.weight"].shape[0], widths, layers, KL_GROUPS)]
    except (ValueError, KeyError, IndexError):  # a VAE of another layout
        return []
