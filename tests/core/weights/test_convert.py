"""Other layouts to one file, and the branch's start: against names written out by hand, and by what the models then do."""

import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
import torch
from diffusers_folder import write_folder
from safetensors.torch import save_file
from tiny import TINY, inputs, random_pipeline

from dreamvideo_core.models.config import UNetConfig
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.models.retention import is_untrained
from dreamvideo_core.models.unet import UNet, is_temporal
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.weights import convert as module
from dreamvideo_core.weights.checkpoint import CheckpointError, load_checkpoint
from dreamvideo_core.weights.convert import Layout, convert, init_retention
from dreamvideo_core.weights.diagnosis import MODELSCOPE_UNET, SD2

SMALL = UNetConfig(
    block_out_channels=(16, 32, 32),
    down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
    up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
    norm_num_groups=4,
    cross_attention_dim=16,
    attention_head_dim=8,
)
IMAGE = replace(
    SMALL, transformer_in=False, temporal_attention="self_attention", temporal_conv_layers=2, temporal_attention_everywhere=True
)


def original_names(config: UNetConfig, temporal: bool) -> dict[str, str]:
    """Diffusers' module names to original ones, by walking through the layers in the order in which the original adds them."""
    names = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    names |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    if config.transformer_in:
        names["transformer_in"] = "input_blocks.0.1"
    parts = (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"))
    parts += (("norm2", "out_layers.0"), ("conv2", "out_layers.3"), ("conv_shortcut", "skip_connection"))

    def add(block: str, layer: int, where: str, attention: bool) -> int:
        """The layers of one original block; how many places they take in it."""
        names.update({f"{block}.resnets.{layer}.{ours}": f"{where}.0.{theirs}" for ours, theirs in parts})
        if temporal:
            names[f"{block}.temp_convs.{layer}"] = f"{where}.0.temopral_conv"
        if attention:
            names[f"{block}.attentions.{layer}"] = f"{where}.1"
            if temporal:
                names[f"{block}.temp_attentions.{layer}"] = f"{where}.2"
        return 1 + attention * (1 + temporal)

    number = count(1)
    for level, kind in enumerate(config.down_block_types):
        for layer in range(config.layers_per_block):
            add(f"down_blocks.{level}", layer, f"input_blocks.{next(number)}", kind.startswith("CrossAttn"))
        if level < len(config.down_block_types) - 1:
            names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{next(number)}" + (
                ".op" if temporal else ".0.op"
            )
    places = add("mid_block", 0, "middle_block", True)
    names.update({f"mid_block.resnets.1.{ours}": f"middle_block.{places}.{theirs}" for ours, theirs in parts})
    if temporal:
        names["mid_block.temp_convs.1"] = f"middle_block.{places}.temopral_conv"
    number = count()
    for level, kind in enumerate(config.up_block_types):
        for layer in range(config.layers_per_block + 1):
            where = f"output_blocks.{next(number)}"
            places = add(f"up_blocks.{level}", layer, where, kind.startswith("CrossAttn"))
            if layer == config.layers_per_block and level < len(config.up_block_types) - 1:
                names[f"up_blocks.{level}.upsamplers.0.conv"] = f"{where}.{places}.conv"
    return names


def original_state(unet: UNet, config: UNetConfig, temporal: bool) -> dict[str, torch.Tensor]:
    """The weights of `unet` as an original file has them."""
    names, state = original_names(config, temporal), {}
    for name, tensor in unet.state_dict().items():
        if is_temporal(name) and not temporal:
            continue
        ours = max((k for k in names if name.startswith(f"{k}.")), key=len)
        if name.endswith(("proj_in.weight", "proj_out.weight")):
            tensor = tensor[..., None] if is_temporal(name) else tensor[..., None, None]
        state[names[ours] + name[len(ours) :]] = tensor
    return state


def random_unet(config: UNetConfig) -> UNet:
    torch.manual_seed(1)
    unet = UNet(config, Operations()).eval()
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return unet


def test_the_original_modelscope_file(tmp_path, monkeypatch):
    monkeypatch.setitem(module.LAYOUTS, MODELSCOPE_UNET, Layout(SMALL, temporal=True))
    unet = random_unet(SMALL)
    torch.save(original_state(unet, SMALL, temporal=True), tmp_path / "text2video.pth")
    written = convert(tmp_path / "text2video.pth", tmp_path / "out.safetensors")
    assert written.lacks() == ("retention", "text_encoder", "vae")
    state = load_checkpoint(tmp_path / "out.safetensors").parts["unet"]
    assert set(state) == set(unet.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in unet.state_dict().items())


@torch.no_grad()
def test_an_image_model_gains_temporal_layers_that_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(module.LAYOUTS, SD2, Layout(IMAGE, "model.diffusion_model."))
    unet = random_unet(IMAGE)
    state = {f"model.diffusion_model.{k}": v for k, v in original_state(unet, IMAGE, temporal=False).items()}
    state |= {"cond_stage_model.model.transformer.resblocks.0.ln_1.weight": torch.ones(1)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "sd.safetensors")
    written = convert(tmp_path / "sd.safetensors", tmp_path / "out.safetensors", prediction_type="v_prediction")
    assert written.config.schedule.prediction_type == "v_prediction"
    loaded = UNet(IMAGE, Operations()).eval()
    loaded.load_state_dict(load_checkpoint(tmp_path / "out.safetensors").parts["unet"])
    spatial = {name: tensor for name, tensor in unet.state_dict().items() if not is_temporal(name)}
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in spatial.items())
    frames, text = torch.randn(4, 4, 8, 8), torch.randn(1, 7, 16)
    clip = loaded.decode(loaded.encode(frames, torch.tensor([300]), text, num_frames=4))
    alone = [loaded.decode(loaded.encode(f[None], torch.tensor([300]), text, num_frames=1)) for f in frames]
    torch.testing.assert_close(clip, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_diffusers_folder_to_one_file_and_back(tmp_path):
    write_folder(tmp_path / "model")
    seen = []
    convert(tmp_path / "model", tmp_path / "a.safetensors", torch.bfloat16, on_tensor=lambda *now: seen.append(now))
    assert seen[-1][0] == seen[-1][1]
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    one, folder = Pipeline.load(tmp_path / "a.safetensors"), Pipeline.load(tmp_path / "model")
    weights = zip(one.model.parameters(), folder.model.parameters(), strict=True)
    assert all(torch.equal(ours, theirs.bfloat16().float()) for ours, theirs in weights)


def test_the_branch_begins_as_the_encoders_copy(tmp_path):
    write_folder(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "text.safetensors")
    started = init_retention(tmp_path / "text.safetensors", tmp_path / "start.safetensors")
    assert not started.lacks() and is_untrained(started.parts["retention"])
    again = init_retention(tmp_path / "model", tmp_path / "again.safetensors", fusion="concat")
    assert again.config.retention.fusion == "concat"
    text, start = (Pipeline.load(tmp_path / f"{name}.safetensors").model for name in ("text", "start"))
    encoder = start.unet.state_dict()
    copied = {name: tensor for name, tensor in start.retention.state_dict().items() if name in encoder}
    assert len(copied) > 50 and all(torch.equal(encoder[name], tensor) for name, tensor in copied.items())
    fusion = again.parts["retention"]["fusion.weight"][..., 0, 0]
    assert torch.equal(fusion, torch.eye(len(fusion)).repeat(1, 2))
    latents, timesteps = torch.randn(1, 3, 4, 8, 8), torch.tensor([10])
    words, image = torch.randn(1, 5, 24), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert start.image_map(torch.rand(4, 3, 64, 64)).std(dim=0).mean() > 0.01  # torch's own start: below 1e-4
        assert torch.equal(start(latents, timesteps, words, image), text(latents, timesteps, words))
    with pytest.raises(CheckpointError, match="has a retention branch already"):
        init_retention(tmp_path / "start.safetensors", tmp_path / "more.safetensors")


def test_trained_layers_alone_are_laid_over_their_model(tmp_path):
    base, trained = random_pipeline(seed=0), random_pipeline(seed=1)
    spatial = {n: p for n, p in base.model.unet.state_dict().items() if not is_temporal(n)}
    trained.model.unet.load_state_dict({**trained.model.unet.state_dict(), **spatial})
    base.save(tmp_path / "base.safetensors", parts=("unet", "text_encoder", "vae"), dtype=torch.float32)
    trained.save(tmp_path / "trained.safetensors", dtype=torch.float32)
    convert(tmp_path / "trained.safetensors", tmp_path / "layers.safetensors", parts=("retention", "temporal"))
    layers = load_checkpoint(tmp_path / "layers.safetensors")
    assert layers.is_overlay() and layers.lacks() == ("text_encoder", "vae")
    whole = load_checkpoint(tmp_path / "base.safetensors").overlaid(layers)
    model = DreamVideo(whole.config).eval()
    model.unet.load_state_dict(whole.parts["unet"])
    model.retention.load_state_dict(whole.parts["retention"])
    latents, timesteps, text, image = inputs()
    with torch.no_grad():
        assert torch.equal(model(latents, timesteps, text, image), trained.model(latents, timesteps, text, image))


def test_layers_of_another_model_do_not_fit(tmp_path):
    random_pipeline().save(tmp_path / "base.safetensors")
    other = replace(TINY, unet=replace(TINY.unet, layers_per_block=2))
    random_pipeline(other).save(tmp_path / "other.safetensors", parts=("retention", "temporal"))
    base, layers = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("base", "other"))
    with pytest.raises(CheckpointError, match="its layers_per_block is 2, this model's is 1"):
        base.overlaid(layers)


@pytest.mark.parametrize(("names", "words"), [
    (["lora_unet_x.lora_down.weight"], "this is a LoRA"),
    (["weight"], "another kind of model"),
    (["input_blocks.1.0.temopral_conv.conv1.0.weight"], "the weights of 'unet' do not fit the configuration"),
])  # fmt: skip
def test_what_cannot_be_converted_leaves_nothing(tmp_path, names, words):
    save_file({name: torch.zeros(1) for name in names}, tmp_path / "in.safetensors")
    with pytest.raises(CheckpointError, match=words):
        convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["in.safetensors"]


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match="no PyTorch file of weights alone"):
        convert(tmp_path / "trap.pth", tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["trap.pth"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its peak of memory as Linux tells it")
def test_memory_holds_one_tensor_at_a_time(tmp_path):
    """A model of 8 tensors of 64 MiB is converted in far less than its 512 MiB."""
    code = f"""
import torch
from pathlib import Path
from dreamvideo_core.weights.tensor_files import LazyTensors, write_tensors
def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
before = peak()
write_tensors({str(tmp_path / "out")!r}, LazyTensors.of_files([Path({str(tmp_path / "in")!r})]), {{}}, torch.float16)
print(peak() - before)
"""
    save_file({str(number): torch.ones(2**24) for number in range(8)}, tmp_path / "in")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 2**26 < int(run.stdout) * 1024 < 6 * 2**26  # a tensor, its copy, and what checking it takes
    assert (tmp_path / "out").stat().st_size > 2**28
