"""What a file that is not ours holds: told from its first bytes and the names of its tensors, never from its own name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """A kind of file, what to do with it, and patterns: each of them matches the name of one of its tensors."""

    name: str
    advice: str
    patterns: tuple[str, ...]


_IMAGE_ADVICE = (
    "It makes images, not clips: load it with Load Checkpoint and give its image to Retention Encode. `dreamvideo convert` "
    "makes a start for training out of its U-Net."
)
_CONVERT = "Turn it into a DreamVideo file with `dreamvideo convert`."
_OWN_NODES = "It is another video model; ComfyUI has nodes of its own for it (Load Diffusion Model)."
_LATENT_DIFFUSION = r"^model\.diffusion_model\.input_blocks\."
_PART = "a DreamVideo model is a U-Net, with or without its text encoder and VAE."

MODELSCOPE_UNET = Kind("the original ModelScope text-to-video U-Net", _CONVERT, (r"^input_blocks\.\d+\.\d+\.temopral_conv\.",))
DIFFUSERS_UNET = Kind(
    "the U-Net of a text-to-video model in diffusers' layout",
    "Put the model's whole folder (unet, text_encoder, vae) into models/dreamvideo or models/diffusers and choose the folder.",
    (r"^conv_in\.", r"^down_blocks\.\d+\.temp_convs\."),
)
SD1, SD2 = (
    Kind(
        f"a Stable Diffusion {number} image checkpoint",
        _IMAGE_ADVICE,
        (rf"^cond_stage_model\.{text_encoder}\.", _LATENT_DIFFUSION),
    )
    for number, text_encoder in ((1, "transformer"), (2, "model"))
)

# The first kind whose patterns all match is the answer, so special ones come before general ones.
KINDS = (
    Kind(
        "a DreamVideo model that has lost its configuration",
        "Whatever wrote it has dropped the metadata; take the file that it was made from.",
        (r"^(unet|retention)\.conv_in\.",),
    ),
    Kind(
        "a LoRA",
        "Load it with Load LoRA behind Load DreamVideo.",
        (r"\.(lora_(down|up|A|B)(\.default)?\.weight|lora\.(down|up)\.weight|hada_w1_a|lokr_w1)$",),
    ),
    Kind(
        "an AnimateDiff motion module",
        "It moves Stable Diffusion image models; an AnimateDiff pack loads it.",
        (r"(^|\.)motion_modules\.\d+\.",),
    ),
    Kind(
        "a ControlNet",
        "Load ControlNet Model loads it; DreamVideo's U-Net takes none.",
        (r"(^|\.)(controlnet_cond_embedding|input_hint_block|zero_convs|controlnet_down_blocks)\.",),
    ),
    Kind("a Wan video model", _OWN_NODES, (r"(^|\.)blocks\.0\.self_attn\.norm_q\.weight$", r"(^|\.)head\.modulation$")),
    Kind(
        "an LTX video model",
        _OWN_NODES,
        (
            r"(^|\.)transformer_blocks\.0\.scale_shift_table$",
            r"(^|\.)(patchify_proj|proj_in)\.weight$",
            r"(^|\.)(adaln_single|time_embed)\.",
        ),
    ),
    Kind(
        "a Stable Video Diffusion checkpoint",
        "It takes a picture but no sentence; Image Only Checkpoint Loader loads it.",
        (r"^model\.diffusion_model\..*\.time_stack\.",),
    ),
    Kind(
        "a Stable Diffusion XL image checkpoint",
        "It makes images, not clips: load it with Load Checkpoint and give its image to Retention Encode.",
        (r"^conditioner\.embedders\.1\.", _LATENT_DIFFUSION),
    ),
    SD2,
    SD1,
    DIFFUSERS_UNET,
    MODELSCOPE_UNET,
    Kind(
        "an image U-Net alone",
        "It makes images, not clips; Load Diffusion Model loads it.",
        (r"^(model\.diffusion_model\.)?(input_blocks|down_blocks)\.\d+\.", r"(^|\.)(out\.2|conv_out)\.weight$"),
    ),
    Kind(
        "a text encoder",
        f"Load CLIP loads it; {_PART}",
        (r"(^|\.)(text_model\.encoder\.layers|encoder\.block|transformer\.resblocks|model\.layers)\.0\.",),
    ),
    Kind(
        "a VAE",
        f"Load VAE loads it; {_PART}",
        (
            r"(^|\.)(encoder\.(down|conv_in|down_blocks|layers)|taesd_encoder|decoder\.(up|conv_in|up_blocks|layers)|taesd_decoder)\b",
        ),
    ),
)

_LENGTH_BYTES = 8
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def kind_of(names: Iterable[str]) -> Kind | None:
    """The kind of file that holds tensors of these names, or None for one not known here."""
    text = "\n".join(names)
    return next((kind for kind in KINDS if all(re.search(p, text, re.MULTILINE) for p in kind.patterns)), None)


def describe_kind(names: Iterable[str]) -> str:
    """What a readable file without our configuration is, and what to do with it."""
    kind = kind_of(names)
    if kind is None:
        return (
            "this file carries no DreamVideo configuration, so it is another kind of model. Choose a file that Save "
            "Checkpoint, `dreamvideo train` or `dreamvideo convert` has written."
        )
    return f"this is {kind.name}, which cannot be loaded here. {kind.advice}"


def is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_LENGTH_BYTES).startswith(_PICKLES)


def describe_damage(path: Path) -> str:
    """Why a file cannot be read as safetensors: what it is or how it is damaged, and what to do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_LENGTH_BYTES)
        length = int.from_bytes(start, "little")
        header = file.read(min(length, size))
    again = "Copy or download it again."
    if size == 0:
        return f"the file is empty. {again}"
    if start.startswith(b"GGUF"):
        return "this is a GGUF file, which a GGUF pack's loader reads. DreamVideo reads .safetensors."
    if start.startswith(_PICKLES):
        return f"this is a pickle (.pth, .pt, .ckpt), which can run code when it is read. {_CONVERT}"
    if start.startswith(b"version "):
        return "this is a Git LFS pointer, a few lines of text in place of the weights. Fetch the file with `git lfs pull`."
    if start.lstrip().startswith((b"<", b"{")):
        return f"this is a web page or a text, not a model. {again}"
    if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
        return f"this is no .safetensors file, or one that is cut off within its header. {again}"
    return f"{_header_damage(header, size - _LENGTH_BYTES - length)} {again}"


def _header_damage(header: bytes, data_size: int) -> str:
    try:
        table = json.loads(header)
        end = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "the file's header is damaged."
    if end > data_size:
        return f"the file is cut off: {end - data_size:,} of its {end:,} bytes of weights are missing."
    return "the file's header does not fit its weights."
