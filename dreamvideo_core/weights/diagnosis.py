"""What another kind of file holds, judged by its first bytes and the names of its tensors, never by its own name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..common.checks import InputError, shown
from ..common.json_files import parse_object
from .tensor_files import LENGTH_BYTES, MAX_HEADER, LazyTensors


@dataclass(frozen=True)
class Kind:
    """A kind of file and what to do with it. Each of `patterns` matches the name of some tensor in it.

    `in_channels` is that of the U-Net's first convolution, for kinds that names alone do not tell apart.
    """

    name: str
    advice: str
    patterns: tuple[str, ...]
    in_channels: int | None = None


_IMAGE_ADVICE = (
    "It makes images, not clips: load it with Load Checkpoint and give its image to Retention Encode. `dreamvideo convert` "
    "makes a start for training out of its U-Net."
)
_CONVERT = "Turn it into a DreamVideo file with `dreamvideo convert`."
_OWN_NODES = "It is another video model; ComfyUI has nodes of its own for it (Load Diffusion Model)."
_LATENT_DIFFUSION = r"^model\.diffusion_model\.input_blocks\."
_PART = "a DreamVideo model is a U-Net, with or without its text encoder and VAE."
_AS_IT_IS = "Load DreamVideo loads it as it is."
_NOT_YET = "DreamVideo does not load this family; a node pack made for it does."
_SVD_ADVICE = "It takes a picture but no sentence; Image Only Checkpoint Loader loads it."
# Names of latent diffusion's code, with or without the prefixes of whole checkpoints and of DeepSpeed.
_UNET = r"^(?:_forward_module\.)?(?:model\.diffusion_model\.)?"
_LVDM = rf"{_UNET}init_attn\.\d+\."  # of VideoCrafter and its kin
_PICTURE_ATTENTION = r"\.attn2\.to_k_ip\.weight$"
_TEMPORAL_CONV = rf"{_UNET}input_blocks\.\d+\.\d+\.temopral_conv\."
_MOTION_MODULES = r"(^|\.)motion_modules\.\d+\."
_FIRST_CONVOLUTION = re.compile(r"(^|\.)(input_blocks\.0\.0|conv_in)\.weight$")

DYNAMICRAFTER_KINDS = (
    Kind(
        "a DynamiCrafter checkpoint of 256 x 256 (image to video)",
        _AS_IT_IS,
        (_LVDM, _PICTURE_ATTENTION, r"\.attn2\.alpha$"),
    ),
    Kind("a DynamiCrafter checkpoint (image to video)", _AS_IT_IS, (_LVDM, _PICTURE_ATTENTION), in_channels=8),
)
MODELSCOPE_UNET = Kind("the original ModelScope text-to-video U-Net", _CONVERT, (r"^input_blocks\.\d+\.\d+\.temopral_conv\.",))
I2VGEN_UNET = Kind(
    "the U-Net of I2VGen-XL in diffusers' layout",
    _NOT_YET,
    (r"^image_latents_(proj_in|context_embedding)\.", r"^down_blocks\.\d+\.temp_convs\."),
)
SVD_UNET = Kind(
    "the U-Net of Stable Video Diffusion in diffusers' layout",
    _SVD_ADVICE,
    (r"^down_blocks\.\d+\.resnets\.\d+\.temporal_res_block\.",),
)
CONSISTI2V_UNET = Kind("the U-Net of ConsistI2V", _NOT_YET, (r"\.tempo_attns\.\d+\.", r"\.conv3ds\.\d+\."))
MOTION_MODULE = Kind(
    "an AnimateDiff motion module",
    "It moves Stable Diffusion image models; an AnimateDiff pack loads it.",
    (_MOTION_MODULES,),
)
IMAGE_UNET = Kind(
    "an image U-Net alone",
    "It makes images, not clips; Load Diffusion Model loads it.",
    (rf"{_UNET}(input_blocks|down_blocks)\.\d+\.", r"(^|\.)(out\.2|conv_out)\.weight$"),
)
# By the class that a diffusers folder names in unet/config.json.
_CLASSES = {
    "I2VGenXLUNet": I2VGEN_UNET,
    "UNetSpatioTemporalConditionModel": SVD_UNET,
    "VideoLDMUNet3DConditionModel": CONSISTI2V_UNET,
    "UNetMotionModel": MOTION_MODULE,
    "UNet2DConditionModel": IMAGE_UNET,
}
_WHOLE_FOLDER = (
    "Put the model's whole folder (unet, text_encoder, vae) into models/dreamvideo or models/diffusers and choose the folder."
)
DIFFUSERS_UNET = Kind(
    "the U-Net of a text-to-video model in diffusers' layout",
    _WHOLE_FOLDER,
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

# The first kind whose patterns all match is the answer, so specific kinds come before general ones.
KINDS = (
    Kind(
        "a DreamVideo model that has lost its configuration",
        "Whatever wrote it has dropped the metadata; take the file that it was made from.",
        (r"^(unet|retention)\.conv_in\.",),
    ),
    Kind(
        "a state of `dreamvideo train`",
        "`dreamvideo train --resume` goes on from it; the trained model is the .safetensors file that the training writes.",
        (r"^weights\.", r"^(average|exp_avg|momentum_buffer)\."),
    ),
    Kind(
        "a LoRA",
        "Load it with Load LoRA behind Load DreamVideo.",
        (r"\.(lora_(down|up|A|B)(\.default)?\.weight|lora\.(down|up)\.weight|hada_w1_a|lokr_w1)$",),
    ),
    Kind(
        "AnimateLCM-I2V, a motion module with an image encoder", MOTION_MODULE.advice, (_MOTION_MODULES, r"(^|\.)img_encoder\.")
    ),
    Kind(
        "PIA, a motion module that sees a picture", MOTION_MODULE.advice, (_MOTION_MODULES, r"(^|\.)conv_in\."), in_channels=9
    ),
    MOTION_MODULE,
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
    Kind("a Stable Video Diffusion checkpoint", _SVD_ADVICE, (r"^model\.diffusion_model\..*\.time_stack\.",)),
    SVD_UNET,
    Kind(
        "a ToonCrafter checkpoint, which draws between two pictures",
        _NOT_YET,
        (_LVDM, _PICTURE_ATTENTION, r"first_stage_model\.decoder\..*\.(time_stack|time_mix_conv|attn_refinement)\."),
    ),
    *DYNAMICRAFTER_KINDS,
    Kind("a VideoCrafter1 checkpoint (image to video)", _NOT_YET, (_LVDM, _PICTURE_ATTENTION)),
    Kind("a VideoCrafter1 checkpoint (text to video)", _NOT_YET, (_LVDM, r"\.relative_position_[kv]\.")),
    Kind("a VideoCrafter2 checkpoint (text to video)", _NOT_YET, (_LVDM, _TEMPORAL_CONV)),
    Kind(
        "VGen's own I2VGen-XL, an image-to-video U-Net",
        _NOT_YET,
        (_TEMPORAL_CONV, r"(^|\.)local_image_concat\."),
    ),
    Kind(
        "another U-Net of VGen (HiGen, TF-T2V, VideoLCM or VideoComposer)",
        _NOT_YET,
        (
            _TEMPORAL_CONV,
            r"(^|\.)([am]sim_embedding|pre_image(_condition)?|(depth|motion|canny|masked|sketch|local_image)_embedding)\.",
        ),
    ),
    Kind(
        "a Stable Diffusion XL image checkpoint",
        "It makes images, not clips: load it with Load Checkpoint and give its image to Retention Encode.",
        (r"^conditioner\.embedders\.1\.", _LATENT_DIFFUSION),
    ),
    SD2,
    SD1,
    I2VGEN_UNET,
    CONSISTI2V_UNET,
    DIFFUSERS_UNET,
    Kind(
        "a shard of a video model's U-Net in diffusers' layout",
        _WHOLE_FOLDER,
        (r"^(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.temp_convs\.",),
    ),
    MODELSCOPE_UNET,
    IMAGE_UNET,
    Kind(
        "a CLIP vision model, or a CLIP with its vision half",
        f"Load CLIP Vision loads it, for Video Metrics; {_PART}",
        (r"(^|\.)(vision_model\.encoder\.layers|visual\.transformer\.resblocks)\.0\.",),
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

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def kind_of(tensors: Iterable[str]) -> Kind | None:
    """The kind of file with tensors of these names, or None. `LazyTensors` also tell shapes, for kinds with `in_channels`."""
    text, channels = "\n".join(tensors), _in_channels(tensors)
    for kind in KINDS:
        fits = kind.in_channels is None or kind.in_channels in channels
        if fits and all(re.search(pattern, text, re.MULTILINE) for pattern in kind.patterns):
            return kind
    return None


def _in_channels(tensors: Iterable[str]) -> set[int]:
    if not isinstance(tensors, LazyTensors):
        return set()
    shapes = [tensors.outline(name).shape for name in tensors if _FIRST_CONVOLUTION.search(name)]
    return {shape[1] for shape in shapes if len(shape) > 1}


def describe_kind(tensors: Iterable[str]) -> str:
    """A message on a readable file without DreamVideo's configuration; `tensors` is as for `kind_of`."""
    kind = kind_of(tensors)
    if kind is None:
        return (
            "this file carries no DreamVideo configuration, so it is another kind of model. Choose a file that Save "
            "Checkpoint, `dreamvideo train` or `dreamvideo convert` has written."
        )
    if kind in DYNAMICRAFTER_KINDS:
        return f"this is {kind.name}. {kind.advice}"
    return f"this is {kind.name}, which cannot be loaded here. {kind.advice}"


def describe_class(given: str, expected: str) -> str:
    """A message on a diffusers folder whose configuration names the class `given`, not `expected`."""
    fault = f"its class is {shown(given)}, DreamVideo takes {expected}."
    kind = _CLASSES.get(given)
    if kind is None:
        return f"{fault} Text-to-video models of ModelScope's kind have one."
    return f"{fault} It is {kind.name}. {kind.advice}"


def is_pickle(path: Path) -> bool:
    """Whether a file begins as PyTorch's files do."""
    with path.open("rb") as file:
        return file.read(LENGTH_BYTES).startswith(_PICKLES)


def describe_damage(path: Path) -> str:
    """A message on a file that cannot be read as safetensors: what it is or how it is damaged, and what to do."""
    try:
        return _describe_damage(path)
    except OSError as error:
        return f"this file cannot be read ({error.strerror or error})."


def _describe_damage(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    again = "Copy or download it again."
    if size == 0:
        return f"the file is empty. {again}"
    if start.startswith(b"GGUF"):
        return "this is a GGUF file, which a GGUF pack's loader reads. DreamVideo reads .safetensors."
    if start.startswith(_PICKLES):
        return (
            "this is a pickle (.pth, .pt, .ckpt), which can run code when it is read. `dreamvideo convert` reads its weights "
            "alone: it makes a DreamVideo file of them, or says whose they are."
        )
    if start.startswith(b"version "):
        return "this is a Git LFS pointer, a few lines of text in place of the weights. Fetch the file with `git lfs pull`."
    if size < LENGTH_BYTES or length > size - LENGTH_BYTES:
        if start.lstrip().startswith((b"<", b"{")):
            return f"this is a web page or a text, not a model. {again}"
        return f"this is no .safetensors file, or one that is cut off within its header. {again}"
    if length > MAX_HEADER:
        return f"the file's header has {length:,} bytes; allowed: up to {MAX_HEADER:,}. {again}"
    return f"{_header_damage(path, length, size - LENGTH_BYTES - length)} {again}"


def _header_damage(path: Path, length: int, data_size: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(LENGTH_BYTES)
            table = parse_object(file.read(length), "the header")
        end = max((entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"), default=0)
        if end > data_size:
            return f"the file is cut off: {end - data_size:,} of its {end:,} bytes of weights are missing."
    except (InputError, KeyError, TypeError, IndexError, ValueError):
        return "the file's header is damaged."
    return "the file's header does not fit its weights."
