"""Models in diffusers' folders and hub caches, written by diffusers and transformers themselves."""

import json
import shutil
from dataclasses import asdict

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers_folder import TEXT, UNET, write_folder
from schedules import PUBLIC
from transformers import CLIPTextModel

from dreamvideo_core.models.config import AutoencoderConfig, ScheduleConfig
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.weights.checkpoint import CheckpointError
from dreamvideo_core.weights.sources import model_folder, open_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "model"
    return folder, write_folder(folder)


@pytest.fixture
def folder(original, tmp_path):
    return shutil.copytree(original[0], tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder, *words):
    with pytest.raises(CheckpointError) as caught:
        open_model(folder)
    assert all(word in str(caught.value) for word in words), caught.value


def test_configuration_and_weights(original):
    folder, unet = original
    checkpoint = open_model(folder)
    config = checkpoint.config
    assert {name: getattr(config.unet, name) for name in UNET} == UNET and config.unet.transformer_in
    assert {name: getattr(config.text_encoder, name) for name in TEXT} == TEXT and config.text_encoder.pad_token_id == 0
    assert config.vae == AutoencoderConfig("kl", 4, (32, 32, 32, 32), 1)
    assert config.schedule == ScheduleConfig(prediction_type="v_prediction")
    assert checkpoint.lacks() == ("retention",)
    state = unet.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in checkpoint.parts["unet"].items())


@torch.no_grad()
def test_the_whole_pipeline_equals_diffusers_parts(original):
    folder, unet = original
    pipeline = Pipeline.load(folder)
    latents, text = torch.randn(1, 3, 4, 8, 8), pipeline.text_encoder.encode(["a cat", ""])[:1]
    expected = unet(latents.transpose(1, 2), torch.tensor([500]), text).sample.transpose(1, 2)
    torch.testing.assert_close(pipeline.model(latents, torch.tensor([500]), text), expected, rtol=1e-4, atol=1e-5)
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    frames = torch.rand(1, 2, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(pipeline.encode(frames)[0], vae.encode(frames[0]).latent_dist.mean * 0.18215)
    clip = pipeline("a cat", width=16, height=16, num_frames=2, steps=2, text_scale=3.0)
    assert clip.shape == (1, 2, 3, 16, 16) and clip.isfinite().all()


def test_the_text_is_padded_as_the_tokenizer_says(original):
    pipeline = Pipeline.load(original[0])
    text_model = CLIPTextModel.from_pretrained(original[0] / "text_encoder").eval()
    ids = torch.tensor([[49406, 2368, 49407] + [0] * 74])
    with torch.no_grad():
        torch.testing.assert_close(pipeline.text_encoder.encode(["cat"]), text_model(ids).last_hidden_state)


@pytest.mark.parametrize(
    "options", [{"max_shard_size": "300KB"}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "300KB"}]
)
def test_shards_and_variants(original, tmp_path, options):
    write_folder(tmp_path / "other", **options)
    names = [p.name for p in (tmp_path / "other" / "unet").iterdir()]
    assert "diffusion_pytorch_model.safetensors" not in names
    expected, got = open_model(original[0]).parts["unet"], open_model(tmp_path / "other").parts["unet"]
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_a_hub_cache(original, tmp_path):
    cache = tmp_path / "models--someone--model"
    for commit in ("aaa", "bbb"):
        shutil.copytree(original[0], cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("bbb")
    assert model_folder(cache) == cache / "snapshots" / "bbb"
    shutil.rmtree(cache / "refs")
    assert model_folder(cache) == cache / "snapshots" / "aaa"
    assert open_model(cache).lacks() == ("retention",)


def test_pickles_only_where_they_are_allowed(folder, original):
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(original[1].state_dict(), unet / "diffusion_pytorch_model.bin")
    refused(folder, "unet: there is no diffusion_pytorch_model.safetensors", "can run code", "dreamvideo convert")
    parts = open_model(folder, pickles=True).parts
    assert torch.equal(parts["unet"]["conv_in.weight"], original[1].conv_in.weight)


def test_parts_that_are_not_there(folder):
    shutil.rmtree(folder / "vae")
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "scheduler")
    checkpoint = open_model(folder)
    assert checkpoint.lacks() == ("retention", "text_encoder", "vae")
    assert checkpoint.config.schedule == ScheduleConfig()


def test_folders_that_are_no_model(folder, tmp_path):
    refused(tmp_path, "no unet/config.json", "Give the folder that holds")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused(folder, "unet: there is no diffusion_pytorch_model.safetensors; get it")


@pytest.mark.parametrize(("part", "changes", "words"), [
    ("unet", {"_class_name": "UNet2DConditionModel"}, ("its class is 'UNet2DConditionModel'", "takes UNet3DConditionModel")),
    ("unet", {"act_fn": "mish"}, ("unet/config.json: act_fn is 'mish'; DreamVideo has 'silu' only",)),
    ("unet", {"norm_num_groups": 7}, ("norm_num_groups is 7, which does not divide",)),
    ("unet", {"layers_per_block": "two"}, ("unet/config.json", "Get the file again")),
    ("vae", {"scaling_factor": 0.13025}, ("scaling_factor is 0.13025; DreamVideo has 0.18215 only",)),
    ("vae", {"_class_name": "AutoencoderTiny"}, ("its class is 'AutoencoderTiny'", "takes AutoencoderKL")),
])  # fmt: skip
def test_settings_that_our_layers_do_not_have(folder, part, changes, words):
    edit(folder / part / "config.json", **changes)
    refused(folder, *words)


@pytest.mark.parametrize("config", [*PUBLIC.values(), ScheduleConfig(beta_end=0.02)], ids=[*PUBLIC, "another"])
def test_the_schedule_of_a_folder(folder, config):
    names = {name: value for name, value in asdict(config).items() if name not in ("base_scale", "timestep_spacing")}
    spacing = config.timestep_spacing.replace("simple", "leading")  # what diffusers writes for the older models
    DDIMScheduler(**names, timestep_spacing=spacing).save_pretrained(folder / "scheduler")
    assert open_model(folder).config.schedule == config


def test_spacings_that_older_models_name_are_not_followed(folder):
    edit(folder / "scheduler" / "scheduler_config.json", timestep_spacing="linspace", steps_offset=1)
    assert open_model(folder).config.schedule == ScheduleConfig(prediction_type="v_prediction")


@pytest.mark.parametrize(("changes", "words"), [
    ({"beta_schedule": "linear"}, "beta_schedule is 'linear'; allowed: scaled_linear, squaredcos_cap_v2"),
    ({"num_train_timesteps": 500}, "num_train_timesteps is 500; allowed: 1000"),
    ({"prediction_type": "sample"}, "prediction_type is 'sample'; allowed: epsilon, v_prediction"),
    ({"trained_betas": [0.1, 0.2]}, "trained_betas is [0.1, 0.2]; DreamVideo has None only"),
    ({"rescale_betas_zero_snr": None}, "rescale_betas_zero_snr is None; allowed: true or false"),
    ({"rescale_betas_zero_snr": True, "timestep_spacing": "linspace"}, "timestep_spacing is 'linspace'; allowed: simple"),
    ({"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, "rescale_betas_zero_snr is true and prediction_type"),
])  # fmt: skip
def test_a_schedule_that_no_model_here_has(folder, changes, words):
    edit(folder / "scheduler" / "scheduler_config.json", **changes)
    refused(folder, f"scheduler/scheduler_config.json: {words}")


def test_damaged_files(folder):
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused(folder, "vae", "cannot be read", "download it again")
    (folder / "unet" / "config.json").write_text("{")
    refused(folder, "config.json cannot be read as a configuration: it is no JSON")


def test_a_shard_that_is_missing_or_elsewhere(tmp_path):
    write_folder(tmp_path / "model", max_shard_size="300KB")
    index = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    shard = sorted(set(json.loads(index.read_text())["weight_map"].values()))[0]
    (index.parent / shard).unlink()
    refused(tmp_path / "model", f"the shard {shard!r} is not beside it")
    edit(index, weight_map={"conv_in.weight": "../../elsewhere.safetensors"})
    refused(tmp_path / "model", "elsewhere.safetensors' is not beside it")
