"""Files of other kinds are told apart by what is in them, whatever they are called."""

import json
import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from dreamvideo_core.training.state import TrainingState, save_state
from dreamvideo_core.weights.checkpoint import CheckpointError, load_checkpoint
from dreamvideo_core.weights.convert import convert
from dreamvideo_core.weights.diagnosis import DYNAMICRAFTER_KINDS, KINDS, kind_of

LDM = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
VIDEO = "model.diffusion_model.input_blocks.1.0.temopral_conv.conv1.2.weight"
PICTURE = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k_ip.weight"
START = "model.diffusion_model.init_attn.0.proj_in.weight"
FPS = "model.diffusion_model.fps_embedding.0.weight"
OPENCLIP = ["cond_stage_model.model.transformer.resblocks.0.ln_1.weight", "first_stage_model.encoder.conv_in.weight"]
SEES = ["embedder.model.visual.transformer.resblocks.0.ln_1.weight", "image_proj_model.latents"]
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
# Names that such files have, some of each, and the shapes of those that tell by them.
NAMES = {
    "a state of `dreamvideo train`": [
        "weights.model.retention.zero_convs.0.weight",
        "average.model.retention.zero_convs.0.weight",
        "exp_avg.model.retention.zero_convs.0.weight",
    ],
    "AnimateLCM-I2V, a motion module with an image encoder": [
        "img_encoder.conv_in.weight",
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
    ],
    "PIA, a motion module that sees a picture": [
        ("conv_in.weight", (320, 9, 3, 3)),
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
    ],
    "a ToonCrafter checkpoint, which draws between two pictures": [
        (FIRST, (320, 8, 3, 3)),
        START,
        LDM,
        VIDEO,
        PICTURE,
        FPS,
        *OPENCLIP,
        *SEES,
        "first_stage_model.decoder.mid.block_1.time_stack.in_layers.0.weight",
    ],
    "a DynamiCrafter checkpoint of 256 x 256 (image to video)": [
        (FIRST, (320, 8, 3, 3)),
        START,
        LDM,
        VIDEO,
        PICTURE,
        PICTURE.replace("to_k_ip.weight", "alpha"),
        *OPENCLIP,
        *SEES,
    ],
    "a DynamiCrafter checkpoint (image to video)": [
        (FIRST, (320, 8, 3, 3)),
        START,
        LDM,
        VIDEO,
        PICTURE,
        FPS,
        "image_proj_model.latents",
        *OPENCLIP[1:],  # as pruned files
    ],
    "a VideoCrafter1 checkpoint (image to video)": [
        (FIRST, (320, 4, 3, 3)),
        START,
        LDM,
        VIDEO,
        PICTURE,
        FPS,
        *OPENCLIP,
        *SEES,
    ],
    "a VideoCrafter1 checkpoint (text to video)": [
        (FIRST, (320, 4, 3, 3)),
        START,
        LDM,
        *OPENCLIP,
        "model.diffusion_model.init_attn.0.transformer_blocks.0.attn1.relative_position_k.embeddings_table",
    ],
    "a VideoCrafter2 checkpoint (text to video)": [(FIRST, (320, 4, 3, 3)), START, LDM, VIDEO, FPS, *OPENCLIP],
    "VGen's own I2VGen-XL, an image-to-video U-Net": [
        "input_blocks.1.0.temopral_conv.conv1.0.weight",
        "local_image_concat.0.weight",
        "local_image_embedding.0.weight",
        "local_temporal_encoder.layers.0.0.norm.weight",
        "context_embedding.0.weight",
        "fps_embedding.0.weight",
        "out.2.weight",
    ],
    "another U-Net of VGen (HiGen, TF-T2V, VideoLCM or VideoComposer)": [
        "input_blocks.1.0.temopral_conv.conv1.0.weight",
        "msim_embedding.0.weight",
        "out.2.weight",
    ],
    "the U-Net of I2VGen-XL in diffusers' layout": [
        "conv_in.weight",
        "down_blocks.0.temp_convs.0.conv1.0.weight",
        "image_latents_proj_in.0.weight",
        "image_latents_context_embedding.0.weight",
        "conv_out.weight",
    ],
    "the U-Net of Stable Video Diffusion in diffusers' layout": [
        "conv_in.weight",
        "down_blocks.0.resnets.0.temporal_res_block.conv1.weight",
        "conv_out.weight",
    ],
    "the U-Net of ConsistI2V": [
        "conv_in.weight",
        "down_blocks.0.conv3ds.0.conv1.weight",
        "down_blocks.0.tempo_attns.0.proj_in.weight",
        "conv_out.weight",
    ],
    "a CLIP vision model, or a CLIP with its vision half": [
        "vision_model.encoder.layers.0.layer_norm1.weight",
        "visual_projection.weight",
    ],
    "a DreamVideo model that has lost its configuration": ["unet.conv_in.weight", "retention.conv_in.weight"],
    "a LoRA": ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "lora_unet_mid_block_x.alpha"],
    "an AnimateDiff motion module": [
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",
        "up_blocks.1.motion_modules.2.temporal_transformer.norm.bias",
    ],
    "a ControlNet": ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"],
    "a Wan video model": ["blocks.0.self_attn.norm_q.weight", "head.modulation", "patch_embedding.weight"],
    "an LTX video model": [
        "model.diffusion_model.transformer_blocks.0.scale_shift_table",
        "model.diffusion_model.patchify_proj.weight",
        "model.diffusion_model.adaln_single.linear.weight",
    ],
    "a Stable Video Diffusion checkpoint": [
        "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight",
        LDM,
        "conditioner.embedders.0.open_clip.model.visual.proj",
        "first_stage_model.encoder.conv_in.weight",
    ],
    "a Stable Diffusion XL image checkpoint": [LDM, "conditioner.embedders.1.model.ln_final.weight"],
    "a Stable Diffusion 2 image checkpoint": [LDM, "cond_stage_model.model.transformer.resblocks.0.ln_1.weight"],
    "a Stable Diffusion 1 image checkpoint": [LDM, "cond_stage_model.transformer.text_model.encoder.layers.0.layer_norm1.bias"],
    "the U-Net of a text-to-video model in diffusers' layout": ["conv_in.weight", "down_blocks.0.temp_convs.0.conv1.0.weight"],
    "a shard of a video model's U-Net in diffusers' layout": ["up_blocks.1.temp_convs.0.conv1.0.weight", "conv_out.weight"],
    "the original ModelScope text-to-video U-Net": ["input_blocks.1.0.temopral_conv.conv1.0.weight", "out.2.weight"],
    "an image U-Net alone": ["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight", "conv_out.weight"],
    "a VAE": ["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"],
    "a text encoder": ["text_model.encoder.layers.0.self_attn.k_proj.weight", "text_model.final_layer_norm.bias"],
}


def words_about(path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path.name}: ")
    return str(caught.value)


def write(path, names) -> None:
    pairs = ((name, (1,)) if isinstance(name, str) else name for name in names)
    save_file({name: torch.zeros(shape) for name, shape in pairs}, path)


def test_every_kind_has_its_names():
    assert set(NAMES) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("name", NAMES)
def test_kinds_of_readable_files(tmp_path, name):
    path = tmp_path / "dreamvideo_sprites.safetensors"
    write(path, NAMES[name])
    kind = next(kind for kind in KINDS if kind.name == name)
    can_be_loaded = "" if kind in DYNAMICRAFTER_KINDS else ", which cannot be loaded here"
    assert f"this is {name}{can_be_loaded}. {kind.advice}" in words_about(path)


def test_names_that_nobody_knows(tmp_path):
    assert kind_of(["weight", "bias"]) is None
    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "no DreamVideo configuration, so it is another kind of model. Choose" in words_about(tmp_path / "a.safetensors")


def header(table: dict) -> bytes:
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(("content", "words"), [
    (b"", "the file is empty. Copy"),
    (b"GGUF\x03\x00\x00\x00" + bytes(100), "a GGUF file"),
    (b"\x80\x02}q\x00." + bytes(100), "a pickle"),
    (b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 5\n", "Git LFS pointer"),
    (b"<!DOCTYPE html><html>", "a web page"),
    (b'{"error": "not found"}', "a web page or a text"),
    (bytes(4), "cut off within its header"),
    ((10**9).to_bytes(8, "little") + bytes(50), "cut off within its header"),
    ((20).to_bytes(8, "little") + b"\xff" * 20, "header is damaged"),
    (header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}) + bytes(10), "6 of its 16 bytes of weights"),
    (header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}) + bytes(8), "does not fit its weights"),
    (header({"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}) + bytes(16), "does not fit its weights"),
])  # fmt: skip
def test_files_that_cannot_be_read(tmp_path, content, words):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert words in words_about(tmp_path / "model.safetensors")


def test_a_torch_file_is_a_pickle(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert "a pickle (.pth, .pt, .ckpt), which can run code" in words_about(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("names", "name"), [
    ([n.removeprefix("model.diffusion_model.") for n in (START, VIDEO, FPS)], "a VideoCrafter2 checkpoint (text to video)"),
    (["_forward_module." + n for n in (START, VIDEO, FPS)], "a VideoCrafter2 checkpoint (text to video)"),
    (["visual.transformer.resblocks.0.ln_1.weight"], "a CLIP vision model, or a CLIP with its vision half"),
    (["vision_model.encoder.layers.0.layer_norm1.weight", "text_model.encoder.layers.0.layer_norm1.weight"],
     "a CLIP vision model, or a CLIP with its vision half"),
    (["weights.unet.zero_convs.0.weight", "average.unet.zero_convs.0.weight"], "a state of `dreamvideo train`"),
    (["module.down_blocks.0.motion_modules.0.x", "module.img_encoder.conv_in.weight"],
     "AnimateLCM-I2V, a motion module with an image encoder"),
])  # fmt: skip
def test_the_same_kinds_by_other_names(names, name):
    """A U-Net alone, under DeepSpeed's prefix, in OpenCLIP's layout, a whole CLIP."""
    assert kind_of(names).name == name


@pytest.mark.parametrize("holder", ["state_dict", "module", None])
@pytest.mark.parametrize("kind", ["a VideoCrafter2 checkpoint (text to video)", "a VideoCrafter1 checkpoint (image to video)"])
def test_what_convert_says_of_a_ckpt(tmp_path, kind, holder):
    pairs = [(name, (1,)) if isinstance(name, str) else name for name in NAMES[kind]]
    state = {name: torch.zeros(shape) for name, shape in pairs}
    torch.save({holder: state, "global_step": 5} if holder else state, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="DreamVideo does not load this family") as caught:
        convert(tmp_path / "model.ckpt", tmp_path / "out.safetensors")
    assert str(caught.value).startswith(f"model.ckpt: this is {kind}, which cannot be loaded here")
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


def test_a_training_state_as_it_is_written(tmp_path):
    weight = {"model.retention.zero_convs.0.weight": torch.zeros(1)}
    moments = {name: {"exp_avg": tensor, "exp_avg_sq": tensor} for name, tensor in weight.items()}
    save_state(tmp_path, TrainingState(3, weight, {}, moments))
    assert "this is a state of `dreamvideo train`" in words_about(tmp_path / "state-0000003.safetensors")


def test_a_large_file_of_another_kind_is_not_read(tmp_path):
    """Only its first bytes are: the file is 20 GB of nothing behind them."""
    for name, start in (("gguf", b"GGUF\x03\x00\x00\x00"), ("long", (2**33).to_bytes(8, "little"))):
        with (tmp_path / f"{name}.safetensors").open("wb") as file:
            file.write(start)
            file.truncate(20 * 2**30)
    tracemalloc.start()
    assert "a GGUF file" in words_about(tmp_path / "gguf.safetensors")
    assert "header has 8,589,934,592 bytes; allowed: up to" in words_about(tmp_path / "long.safetensors")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_header_that_is_nested_too_deeply(tmp_path):
    text = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert "header is damaged" in words_about(tmp_path / "model.safetensors")
