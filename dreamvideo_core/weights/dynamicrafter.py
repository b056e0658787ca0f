"""DynamiCrafter's own files (arXiv 2310.12190), opened as they are: tensors get other names, nothing is copied.

Its trainer's .ckpt files hold the whole model. Pruned .safetensors files in half precision hold the U-Net, the resampler, the
VAE and the trainer's buffers, and neither half of CLIP.

There are four public models, called `VARIANTS` here. Their files say only in part which one they hold. 256 alone has learned
scales of its attention to the picture. The buffer `scale_arr` ends with 0.3 in 1024 and with 0.7 in 512 and 512_interp. Nothing
in a file tells those two apart: they have equal shapes and buffers, and differ in the latents that they were trained to see.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..common.checks import shown
from ..models.config import (
    DYNAMICRAFTER_256,
    DYNAMICRAFTER_512,
    DYNAMICRAFTER_512_INTERP,
    DYNAMICRAFTER_1024,
    ModelConfig,
    UNetConfig,
)
from . import openclip_names
from .checkpoint import PARTS, Checkpoint, CheckpointError, check_weights, diffusers_vae
from .diagnosis import DYNAMICRAFTER_KINDS, kind_of
from .original_names import as_linear, diffusers_name
from .tensor_files import LazyTensors

MODELS: dict[str, ModelConfig] = {
    "dynamicrafter_256": DYNAMICRAFTER_256,
    "dynamicrafter_512": DYNAMICRAFTER_512,
    "dynamicrafter_512_interp": DYNAMICRAFTER_512_INTERP,
    "dynamicrafter_1024": DYNAMICRAFTER_1024,
}
VARIANTS = tuple(MODELS)


def _unet(state: LazyTensors, config: UNetConfig) -> LazyTensors:
    """By diffusers' names; unknown names stay as they are."""
    return state.renamed(lambda name: diffusers_name(name, config.layers_per_block, temporal=True) or name).changed(as_linear)


# The prefix of each part's names, and what gives its tensors our names.
_PARTS: dict[str, tuple[str, Callable[[LazyTensors, Any], LazyTensors]]] = {
    "unet": ("model.diffusion_model.", _unet),
    "resampler": ("image_proj_model.", lambda state, config: state),
    "vae": ("first_stage_model.", diffusers_vae),
    "text_encoder": ("cond_stage_model.model.", openclip_names.text_encoder),
    "image_encoder": ("embedder.model.visual.", openclip_names.image_encoder),
}
_DEEPSPEED = "_forward_module."  # before every name of a file that was trained with it
# What such files hold beside the parts: tables of the noise schedule, and the other half of the vision model's CLIP.
_LEFTOVER = re.compile(
    r"betas|(log_|sqrt_)?(one_minus_|recip_|recipm1_)?alphas_cumprod(_prev)?"
    r"|posterior_(variance|log_variance_clipped|mean_coef[12])|lvlb_weights|logvar|scale_arr|scale_factor"
    r"|embedder\.model\.(token_embedding\.weight|positional_embedding|ln_final\.(weight|bias))"
    r"|embedder\.(model\.(text_projection|logit_scale|attn_mask)|mean|std)"
)
_SCALES = "scale_arr"  # what clean latents are multiplied by, one factor per timestep and more
_MOST_SCALES = 10_000
_SAME_SCALE = 0.05  # more than a factor loses in the precisions that files have, fp8 among them


def is_dynamicrafter(tensors: LazyTensors) -> bool:
    return kind_of(tensors) in DYNAMICRAFTER_KINDS


def open_dynamicrafter(tensors: LazyTensors, name: str, variant: str | None = None) -> Checkpoint:
    """The model in the tensors of a file called `name`; raises `CheckpointError` for weights that are not DynamiCrafter's.

    `variant` is one of `VARIANTS`, for a file that does not tell them apart. Without it such a file's name decides where it
    is plain, such as dynamicrafter_512_interp_v1_bf16.safetensors: public files are called so, and a person who downloads
    one should not have to answer what its name says. That is a guess all the same, so a remark of the checkpoint says it.
    Where the name is not plain, the error says what may be chosen. No name overrules what a file holds.
    """
    tensors = tensors.renamed(lambda key: key.removeprefix(_DEEPSPEED))
    if not any(key.startswith(_PARTS["unet"][0]) for key in tensors):  # a U-Net alone
        tensors = tensors.renamed(lambda key: _PARTS["unet"][0] + key)
    variant, remarks = _choose(tensors, name, variant)
    model = MODELS[variant]
    _check_known(tensors, name)
    parts = {}
    for part, (prefix, with_our_names) in _PARTS.items():
        state = tensors.renamed(lambda key, prefix=prefix: key.removeprefix(prefix) if key.startswith(prefix) else None)
        state = with_our_names(state, getattr(model, part))
        if len(state):
            parts[part] = state
    config = replace(model, **{part: None for part in PARTS if part not in parts})
    return check_weights(Checkpoint(config, parts, name, remarks))


def _check_known(tensors: LazyTensors, name: str) -> None:
    prefixes = tuple(prefix for prefix, _ in _PARTS.values())
    unknown = [key for key in tensors if not key.startswith(prefixes) and not _LEFTOVER.fullmatch(key)]
    if unknown:
        raise CheckpointError(
            f"{name}: this is DynamiCrafter, but {len(unknown)} of its tensors belong to no known part of it, "
            f"{shown(unknown[0])} for one. Get the file as its authors published it."
        )


def _choose(tensors: LazyTensors, name: str, variant: str | None) -> tuple[str, tuple[str, ...]]:
    """Which variant the file is taken for, and what is to be said about it."""
    if variant is not None and variant not in VARIANTS:
        raise CheckpointError(f"variant is {shown(variant)}; allowed: {', '.join(VARIANTS)}")
    possible = _told_by_weights(tensors, name)
    if variant is None and len(possible) == 1:
        return possible[0], ()
    if variant is None:
        return _told_by_name(name, possible)
    if variant not in possible:
        raise CheckpointError(
            f"{name}: the variant that is chosen is {variant}, but by its weights this file is {' or '.join(possible)}. Choose "
            "that, or another file."
        )
    return variant, ()


def _told_by_weights(tensors: LazyTensors, name: str) -> list[str]:
    learned = any(key.endswith(".attn2.alpha") for key in tensors)
    last = _last_scale(tensors, name)

    def fits(config: ModelConfig) -> bool:
        if (config.unet.image_cross_attention == "learned_scale") != learned:
            return False
        return last is None or abs(config.schedule.base_scale - last) < _SAME_SCALE

    possible = [variant for variant, config in MODELS.items() if fits(config)]
    if not possible:
        raise CheckpointError(
            f"{name}: its {_SCALES} ends with {last:.3g}, which no public DynamiCrafter has: it is 0.7 in 512 and "
            "512_interp and 0.3 in 1024, and 256 has none. Get one of those."
        )
    return possible


def _last_scale(tensors: LazyTensors, name: str) -> float | None:
    if _SCALES not in tensors:
        return None
    outline = tensors.outline(_SCALES)
    if outline.ndim != 1 or not outline.is_floating_point() or not 0 < len(outline) <= _MOST_SCALES:
        kind = str(outline.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{name}: its {_SCALES} is {kind} of shape {tuple(outline.shape)}; allowed: a list of 1 to {_MOST_SCALES:,} "
            "numbers with fractions. Get the file again."
        )
    return float(tensors[_SCALES][-1])


def _told_by_name(name: str, possible: list[str]) -> tuple[str, tuple[str, ...]]:
    words = set(re.findall(r"[a-z]+|\d+", Path(name).stem.lower()))
    sizes = words & {"256", "512", "1024"}
    named = f"dynamicrafter_{sizes.pop() if len(sizes) == 1 else ''}" + ("_interp" if "interp" in words else "")
    others = [variant for variant in possible if variant != named]
    if "dynamicrafter" in words and named in possible:
        return named, (
            f"{name} is taken for {named} by its name, for its weights do not tell it from {' or '.join(others)}; choose the "
            "variant where the name is wrong",
        )
    choices = ", ".join(f"{variant} ({_meaning(MODELS[variant])})" for variant in possible)
    raise CheckpointError(
        f"{name}: this is DynamiCrafter, but its weights do not tell which of these: {choices}. Choose it as variant in Load "
        "DreamVideo, or as --model of `dreamvideo convert`."
    )


def _meaning(config: ModelConfig) -> str:
    pictures = "a first and a last picture" if config.unet.image_latents == "ends" else "one picture"
    return f"{config.sampling.width} x {config.sampling.height}, {pictures}"
