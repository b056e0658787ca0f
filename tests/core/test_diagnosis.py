"""Files of other kinds are told apart by what is in them, whatever they are called."""

import json

import pytest
import torch
from safetensors.torch import save_file

from dreamvideo_core.checkpoint import CheckpointError, load_checkpoint
from dreamvideo_core.diagnosis import KINDS, kind_of

LDM = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
# Names that such files have, some of each.
NAMES = {
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


def test_every_kind_has_its_names():
    assert set(NAMES) == {kind.name for kind in KINDS}


@pytest.mark.parametrize("name", NAMES)
def test_kinds_of_readable_files(tmp_path, name):
    path = tmp_path / "dreamvideo_sprites.safetensors"
    save_file({key: torch.zeros(1) for key in NAMES[name]}, path)
    kind = next(kind for kind in KINDS if kind.name == name)
    assert f"this is {name}, which cannot be loaded here. {kind.advice}" in words_about(path)


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
