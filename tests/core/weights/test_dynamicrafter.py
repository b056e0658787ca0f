"""DynamiCrafter's own files: told apart, opened as they are and converted, by the names and shapes of its public code."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import lvdm_files
import pytest
import torch
from lvdm_files import TEXT, UNET, VISION, public_shapes, small_config, write_ckpt, write_pruned
from safetensors.torch import load_file, save_file

from dreamvideo_core.models.config import ModelConfig
from dreamvideo_core.weights.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from dreamvideo_core.weights.convert import convert, init_retention
from dreamvideo_core.weights.diagnosis import kind_of
from dreamvideo_core.weights.dynamicrafter import MODELS, VARIANTS, open_dynamicrafter
from dreamvideo_core.weights.sources import open_model
from dreamvideo_core.weights.tensor_files import LazyTensors

PRUNED = ("unet", "resampler", "vae")
WHOLE = (*PRUNED, "text_encoder", "image_encoder")
LIKE_512 = ["dynamicrafter_512", "dynamicrafter_512_interp"]


@pytest.fixture
def small(monkeypatch):
    lvdm_files.use_small_models(monkeypatch)


def published(variant: str) -> LazyTensors:
    """The tensors of a public .ckpt without their values, but for the buffer that is read."""
    outlines = {name: torch.empty(shape, device="meta") for name, shape in public_shapes(variant).items()}
    if "scale_arr" in outlines:
        outlines["scale_arr"] = torch.full((1400,), MODELS[variant].schedule.base_scale)
    return LazyTensors.of(outlines)


def count(state) -> int:
    lazy = LazyTensors.of(state)
    return sum(math.prod(lazy.outline(name).shape) for name in lazy)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        state.keys() == other[part].keys() and all(torch.equal(tensor, other[part][name]) for name, tensor in state.items())
        for part, state in one.items()
    )


def refused(open_it, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_it()
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_of_the_public_model_has_its_place(variant):
    checkpoint = open_dynamicrafter(published(variant), "model.ckpt", variant)
    assert checkpoint.config == MODELS[variant] and set(checkpoint.parts) == set(WHOLE) and not checkpoint.lacks()
    learned_scales = 16 * (variant == "dynamicrafter_256")
    assert {part: count(state) for part, state in checkpoint.parts.items()} == {
        "unet": 1_438_854_980 + learned_scales,
        "resampler": 48_787_456,
        "vae": 83_653_863,
        "text_encoder": 340_387_840,
        "image_encoder": 632_076_800,
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_configuration_survives_json(variant):
    assert ModelConfig.from_dict(json.loads(json.dumps(MODELS[variant].to_dict()))) == MODELS[variant]


def test_the_settings_of_the_public_scripts():
    """configs/inference_*.yaml, scripts/run.sh and scripts/run_application.sh of the public code."""
    sampling = {variant: config.sampling for variant, config in MODELS.items()}
    assert {(s.steps, s.text_scale, s.image_scale, s.eta, s.num_frames) for s in sampling.values()} == {(50, 7.5, 7.5, 1, 16)}
    assert {variant: (s.height, s.width, s.fps, s.rescale) for variant, s in sampling.items()} == {
        "dynamicrafter_256": (256, 256, 3, 0),
        "dynamicrafter_512": (320, 512, 24, 0.7),
        "dynamicrafter_512_interp": (320, 512, 5, 0.7),
        "dynamicrafter_1024": (576, 1024, 10, 0.7),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pruned_file_opens_as_it_is(tmp_path, small, variant, dtype):
    written = write_pruned(tmp_path / "model.safetensors", variant, dtype)
    checkpoint = open_model(tmp_path / "model.safetensors", variant=variant)
    assert checkpoint.config == replace(small_config(variant), text_encoder=None, image_encoder=None)
    assert set(checkpoint.parts) == set(PRUNED) and checkpoint.lacks() == ("text_encoder", "image_encoder")
    assert not checkpoint.remarks
    unet = checkpoint.parts["unet"]
    assert all(state.outline(name).dtype == dtype for state in checkpoint.parts.values() for name in state)
    assert torch.equal(unet["conv_in.weight"], written[f"{UNET}input_blocks.0.0.weight"])
    embedding = "framestride_embed" if variant == "dynamicrafter_256" else "fps_embedding"
    assert torch.equal(unet["fps_embedding.linear_2.bias"], written[f"{UNET}{embedding}.2.bias"])
    assert torch.equal(checkpoint.parts["resampler"]["latents"], written["image_proj_model.latents"])
    places = sum("attn2.to_k_ip" in name for name in unet), sum(name.endswith("attn2.alpha") for name in unet)
    assert places == (16, 16 * (variant == "dynamicrafter_256"))


def test_the_public_file_is_opened_without_reading_it(tmp_path):
    """A file of true size whose weights are a hole. It has as many bytes as the pruned 512 of half precision that is public:
    so that one holds U-Net, resampler, VAE and every buffer, and no more."""
    table, at = {"__metadata__": {"format": "pt"}}, 0
    shapes = {n: s for n, s in public_shapes("dynamicrafter_512").items() if not n.startswith(("cond_stage_", "embedder."))}
    for name in sorted(shapes):
        size = 2 * math.prod(shapes[name])
        table[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "dynamicrafter_512_fp16_pruned.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        start = file.tell()
        file.seek(start + table["scale_arr"]["data_offsets"][0])
        file.write(torch.full((1400,), 0.7).half().numpy().tobytes())
        file.truncate(start + at)
    assert path.stat().st_size == 3_142_870_350
    code = f"""
from pathlib import Path
from dreamvideo_core.weights.sources import open_model
def resident():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
before = resident()
checkpoint = open_model({str(path)!r})
print(sorted(checkpoint.parts), resident() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("['resampler', 'unet', 'vae'] ")
    if sys.platform.startswith("linux"):
        assert int(run.stdout.split()[-1]) < 200_000  # KiB


@pytest.mark.parametrize("variant", ["dynamicrafter_256", "dynamicrafter_512_interp"])
def test_a_ckpt_is_converted_with_all_its_parts(tmp_path, small, variant):
    write_ckpt(tmp_path / "model.ckpt", variant)
    converted = convert(tmp_path / "model.ckpt", tmp_path / "half.safetensors", torch.float16, variant=variant)
    assert not converted.lacks() and converted.config == small_config(variant)
    loaded = load_checkpoint(tmp_path / "half.safetensors")
    assert loaded.config == converted.config and set(loaded.parts) == set(WHOLE)
    save_checkpoint(tmp_path / "again.safetensors", loaded)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "half.safetensors").read_bytes()
    assert same(load_checkpoint(tmp_path / "again.safetensors").parts, loaded.parts)
    write_pruned(tmp_path / "pruned.safetensors", variant)
    pruned = open_model(tmp_path / "pruned.safetensors", variant=variant)
    assert same(pruned.parts, {part: loaded.parts[part] for part in PRUNED})
    convert(tmp_path / "pruned.safetensors", tmp_path / "three.safetensors", variant=variant)
    assert same(pruned.parts, load_checkpoint(tmp_path / "three.safetensors").parts)


def test_a_file_of_deepspeed_and_a_unet_alone(tmp_path, small):
    state = lvdm_files.state("dynamicrafter_1024")
    save_file({f"_forward_module.{name}": tensor for name, tensor in state.items()}, tmp_path / "module.safetensors")
    whole = open_model(tmp_path / "module.safetensors")
    assert set(whole.parts) == set(WHOLE)
    unet = {name.removeprefix(UNET): tensor for name, tensor in state.items() if name.startswith(UNET)}
    save_file(unet, tmp_path / "unet.safetensors")
    alone = open_model(tmp_path / "unet.safetensors", variant="dynamicrafter_1024")
    assert same(alone.parts, {"unet": whole.parts["unet"]})
    assert alone.lacks() == ("text_encoder", "vae", "resampler", "image_encoder")


def test_what_is_said_of_missing_parts(tmp_path, small):
    write_pruned(tmp_path / "a.safetensors", "dynamicrafter_1024")
    text, vision = open_model(tmp_path / "a.safetensors").shortcomings()
    assert text.startswith("no text encoder: Load CLIP brings it") and "Stable Diffusion 2.1" in text and "ViT-H" in text
    assert "Load CLIP Vision" in vision and "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors in models/clip_vision" in vision


@pytest.mark.parametrize(("holds", "name", "variant", "found"), [
    ("dynamicrafter_256", "model", None, "dynamicrafter_256"),
    ("dynamicrafter_1024", "model", None, "dynamicrafter_1024"),
    ("dynamicrafter_1024", "dynamicrafter_512_v1_bf16", None, "dynamicrafter_1024"),  # no name overrules weights
    ("dynamicrafter_512", "model", "dynamicrafter_512", "dynamicrafter_512"),
    ("dynamicrafter_512", "model", "dynamicrafter_512_interp", "dynamicrafter_512_interp"),
    ("dynamicrafter_512", "dynamicrafter_512_v1_bf16", "dynamicrafter_512_interp", "dynamicrafter_512_interp"),
])  # fmt: skip
def test_the_variant_is_what_the_file_holds_or_what_is_chosen(tmp_path, small, holds, name, variant, found):
    write_pruned(tmp_path / f"{name}.safetensors", holds, torch.bfloat16)
    checkpoint = open_model(tmp_path / f"{name}.safetensors", variant=variant)
    assert checkpoint.config.unet == small_config(found).unet and checkpoint.config.schedule == small_config(found).schedule
    assert not checkpoint.remarks


@pytest.mark.parametrize(("name", "found"), [
    ("dynamicrafter_512_v1_bf16", "dynamicrafter_512"),
    ("dynamicrafter_512_interp_v1_bf16", "dynamicrafter_512_interp"),
    ("DynamiCrafter-CIL-512-no-watermark-fixed-pruned-fp16", "dynamicrafter_512"),
    ("dynamicrafter_512_interp_fp16_pruned", "dynamicrafter_512_interp"),
])  # fmt: skip
def test_a_plain_name_decides_where_weights_do_not_and_it_is_said(tmp_path, small, name, found):
    write_pruned(tmp_path / f"{name}.safetensors", "dynamicrafter_512")
    checkpoint = open_model(tmp_path / f"{name}.safetensors")
    assert checkpoint.config.unet == small_config(found).unet and checkpoint.config.sampling == small_config(found).sampling
    (remark,) = checkpoint.remarks
    other = next(variant for variant in LIKE_512 if variant != found)
    assert f"taken for {found} by its name" in remark and other in remark and "choose the variant" in remark
    assert checkpoint.only(("unet",)).remarks == checkpoint.remarks


@pytest.mark.parametrize("name", ["model", "dynamicrafter", "dynamicrafter_1024", "interp_512", "dynamicrafter_256_512"])
def test_who_does_not_say_which_it_is_is_asked(tmp_path, small, name):
    write_pruned(tmp_path / f"{name}.safetensors", "dynamicrafter_512")
    refused(
        lambda: open_model(tmp_path / f"{name}.safetensors"), name, "dynamicrafter_512 (64 x 64, one picture)",
        "dynamicrafter_512_interp (64 x 64, a first and a last picture)", "variant in Load DreamVideo", "--model",
    )  # fmt: skip


def test_without_the_buffer_1024_is_a_choice_too(tmp_path, small):
    tensors = write_pruned(tmp_path / "a.safetensors", "dynamicrafter_512")
    del tensors["scale_arr"]
    save_file(tensors, tmp_path / "a.safetensors")
    refused(lambda: open_model(tmp_path / "a.safetensors"), *LIKE_512, "dynamicrafter_1024 (")
    assert open_model(tmp_path / "a.safetensors", variant="dynamicrafter_1024").config.schedule.base_scale == 0.3


@pytest.mark.parametrize(("holds", "variant", "words"), [
    ("dynamicrafter_512", "dynamicrafter_640", ["variant is 'dynamicrafter_640'; allowed: dynamicrafter_256, "]),
    ("dynamicrafter_512", "dynamicrafter_1024", ["is dynamicrafter_1024, but by its weights", " or ".join(LIKE_512)]),
    ("dynamicrafter_256", "dynamicrafter_512", ["is dynamicrafter_512, but by its weights", "dynamicrafter_256"]),
])  # fmt: skip
def test_a_variant_that_cannot_be(tmp_path, small, holds, variant, words):
    write_pruned(tmp_path / "a.safetensors", holds)
    refused(lambda: open_model(tmp_path / "a.safetensors", variant=variant), *words)


def test_other_files_say_what_they_are_whatever_is_chosen(tmp_path, small):
    write_pruned(tmp_path / "a.safetensors", "dynamicrafter_1024")
    convert(tmp_path / "a.safetensors", tmp_path / "ours.safetensors")
    own = open_model(tmp_path / "ours.safetensors", variant="dynamicrafter_512")
    assert own.config.schedule.base_scale == 0.3


SPLIT = "transformer.resblocks.0.attn.in_proj_weight"


@pytest.mark.parametrize(("change", "words"), [
    ({"scale_arr": torch.ones(1400) / 2}, ["scale_arr ends with 0.5", "0.7 in 512"]),
    ({"scale_arr": torch.full((5,), torch.nan)}, ["scale_arr ends with nan"]),
    ({"scale_arr": torch.ones(2, 2)}, ["scale_arr is float32 of shape (2, 2)"]),
    ({"scale_arr": torch.ones(0)}, ["scale_arr is float32 of shape (0,)"]),
    ({"scale_arr": torch.ones(5, dtype=torch.int64)}, ["scale_arr is int64"]),
    ({"model_ema.weight": torch.ones(1)}, ["1 of its tensors belong to no known part", "'model_ema.weight'"]),
    ({UNET + "extra.weight": torch.ones(1)}, ["'unet' do not fit", "1 unknown, 'extra.weight'"]),
    ({UNET + "out.2.bias": None}, ["'unet' do not fit", "1 missing, 'conv_out.bias'"]),
    ({UNET + "out.2.bias": torch.ones(5)}, ["'conv_out.bias' has shape (5,) and not (4,)"]),
    ({"image_proj_model.latents": torch.ones(1, 8, 24)}, ["'latents' has shape (1, 8, 24) and not (1, 256, 24)"]),
    ({TEXT + SPLIT: torch.ones(1)}, ["'text_encoder' do not fit"]),
    ({TEXT + SPLIT: torch.ones(())}, ["'text_encoder' do not fit"]),
    ({TEXT + SPLIT: None}, ["3 missing"]),
    ({TEXT + SPLIT: torch.ones(71, 24)}, ["'text_encoder' do not fit", "(23, 24) and not (24, 24)"]),
    ({TEXT + "transformer.resblocks.0.new": torch.ones(1)}, ["'text_encoder' do not fit", "unknown"]),
    ({VISION + "proj": torch.ones(3)}, ["'image_encoder' do not fit", "visual_projection.weight"]),
    ({VISION + "extra": torch.ones(3)}, ["'image_encoder' do not fit", "'extra'"]),
])  # fmt: skip
def test_a_file_with_other_tensors(tmp_path, small, change, words):
    state = {**lvdm_files.state("dynamicrafter_1024"), **change}
    path = tmp_path / "model.safetensors"
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, path)
    refused(lambda: open_model(path), "model.safetensors: ", *words)
    refused(lambda: convert(path, tmp_path / "out.safetensors"), *words)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_branch_is_not_begun_for_a_model_that_sees_the_picture(tmp_path, small):
    write_pruned(tmp_path / "a.safetensors", "dynamicrafter_1024")
    refused(lambda: init_retention(tmp_path / "a.safetensors", tmp_path / "out.safetensors"), "without a retention branch")


def test_a_pickle_is_not_opened_but_converted(tmp_path, small):
    write_ckpt(tmp_path / "model.ckpt", "dynamicrafter_1024")
    refused(lambda: open_model(tmp_path / "model.ckpt"), "a pickle", "`dreamvideo convert`")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kind_by_public_names_and_shapes(variant):
    kind = kind_of(published(variant))
    size = " of 256 x 256" if variant == "dynamicrafter_256" else ""
    assert kind.name == f"a DynamiCrafter checkpoint{size} (image to video)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its peak of memory as Linux tells it")
def test_a_ckpt_is_converted_a_piece_at_a_time(tmp_path):
    """One of 512 MiB in eight tensors takes far less memory."""
    torch.save({"state_dict": {str(number): torch.ones(2**24) for number in range(8)}}, tmp_path / "in.ckpt")
    code = f"""
from pathlib import Path
import torch
from dreamvideo_core.weights.sources import read_tensors
from dreamvideo_core.weights.tensor_files import write_tensors
def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
before = peak()
tensors, _ = read_tensors(Path({str(tmp_path / "in.ckpt")!r}), pickles=True)
write_tensors({str(tmp_path / "out")!r}, tensors, {{}}, torch.float16)
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) * 1024 < 6 * 2**26
    assert torch.equal(load_file(tmp_path / "out")["7"], torch.ones(2**24).half())
