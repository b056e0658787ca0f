"""What a file's text encoder and VAE are in ComfyUI: what its configuration says, or a refusal. In process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import TINY

WIDTH = 768


@pytest.fixture(scope="module")
def wide(host: InProcessComfyUI):
    """A model whose text encoder has Stable Diffusion 1's width and two layers: its pipeline, and its file."""
    pipelines, config = host.module("dreamvideo_core.sampling.pipeline"), host.module("dreamvideo_core.models.config")
    table = TINY.to_dict()
    table["unet"]["cross_attention_dim"] = WIDTH
    table["text_encoder"] |= {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 12}
    torch.manual_seed(0)
    pipeline = pipelines.Pipeline.build(config.ModelConfig.from_dict(table))
    torch.nn.init.normal_(pipeline.text_encoder.model.get_input_embeddings().weight, std=0.02)
    path = host.base.models / "dreamvideo" / "wide.safetensors"
    pipeline.save(path, dtype=torch.float32)
    return pipeline, path


def load(host: InProcessComfyUI, name: str) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=name, weight_dtype="default")


def rewritten(path: Path, name: str, change) -> str:
    with safe_open(path, "pt") as file:
        config, state = file.metadata()["dreamvideo"], {key: file.get_tensor(key) for key in file.keys()}
    change(state)
    save_file(state, path.with_name(name), {"dreamvideo": config})
    return name


def test_a_text_encoder_of_a_known_width_and_another_depth(host, wide):
    pipeline, path = wide
    text = "the red circle moves left"
    theirs = host.call("CLIPTextEncode", clip=load(host, path.name)[1], text=text)[0][0][0]
    assert theirs.isfinite().all()
    torch.testing.assert_close(theirs, pipeline.text_encoder.encode([text]), rtol=1e-2, atol=1e-2)  # fp16 in ComfyUI


@pytest.mark.parametrize(("change", "words"), [
    (lambda t: [t.pop(k) for k in list(t) if ".layers.1." in k], "the weights of 'text_encoder' do not fit .* 16 missing"),
    (lambda t: t.update({"text_encoder.text_model.encoder.layers.2.mlp.fc1.bias": torch.ones(64)}), "1 unknown"),
    (lambda t: t.update({"vae.taesd_decoder.1.weight": torch.ones(64)}), r"'vae' .*'taesd_decoder.1.weight' has shape \(64,\)"),
    (lambda t: t.pop("vae.taesd_encoder.0.weight"), "'vae' do not fit .* 1 missing"),
], ids=["layer", "more", "shape", "lost"])  # fmt: skip
def test_weights_of_every_part_are_compared(host, wide, change, words):
    name = rewritten(wide[1], "unfit_part.safetensors", change)
    with pytest.raises(ValueError, match=f"unfit_part.safetensors: .*{words}"):
        load(host, name)


def test_a_vae_that_comfyui_would_compute_otherwise_is_refused(host):
    """Its class has 32 groups in every norm, whatever a configuration says."""
    checkpoint, config = host.module("dreamvideo_core.weights.checkpoint"), host.module("dreamvideo_core.models.config")
    expected = host.module("dreamvideo_core.weights.expected_weights").expected_weights
    table = replace(TINY, retention=None, text_encoder=None).to_dict()
    table["vae"] = {"layout": "kl", "block_out_channels": [32, 32, 32, 32], "norm_num_groups": 16}
    described = config.ModelConfig.from_dict(table)
    parts = {
        part: {name: torch.zeros(outline.shape) for name, outline in expected(described, part).items()}
        for part in ("unet", "vae")
    }
    checkpoint.save_checkpoint(host.base.models / "dreamvideo" / "groups.safetensors", checkpoint.Checkpoint(described, parts))
    with pytest.raises(ValueError, match=r"groups.safetensors: its VAE has norm_num_groups 16"):
        load(host, "groups.safetensors")


def test_the_layer_that_comfyui_adds_changes_nothing(host):
    import comfy.clip_model
    import comfy.ops

    layer = comfy.clip_model.CLIPLayer(16, 2, 32, "gelu", torch.float32, "cpu", comfy.ops.manual_cast)
    named = {f"text_model.encoder.layers.0.{name}": torch.randn(tensor.shape) for name, tensor in layer.state_dict().items()}
    idle = host.module("nodes.host.loader")._idle_layer(named, 1)
    layer.load_state_dict({name.removeprefix("text_model.encoder.layers.1."): tensor for name, tensor in idle.items()})
    x = torch.randn(1, 5, 16)
    attention = comfy.clip_model.optimized_attention_for_device(x.device, small_input=True)
    assert torch.equal(layer(x.clone(), optimized_attention=attention), x)


def test_two_loads_share_weights_and_nothing_else(host, wide):
    first, second = load(host, wide[1].name), load(host, wide[1].name)
    assert first[0].model is second[0].model and first[1].cond_stage_model is second[1].cond_stage_model
    first[0].set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0)
    first[1].clip_layer(-2)
    assert second[0].model_options == load(host, wide[1].name)[0].model_options
    assert second[1].layer_idx is None
    wide[1].write_bytes(wide[1].read_bytes())  # the file has changed since
    assert load(host, wide[1].name)[0].model is not first[0].model


def test_nothing_is_kept_alive(host, wide):
    import gc
    import weakref

    loaded = load(host, wide[1].name)
    parts = [weakref.ref(part) for part in (loaded[0].model, loaded[1].cond_stage_model, loaded[2].first_stage_model)]
    del loaded
    gc.collect()
    assert [part() for part in parts] == [None] * 3
