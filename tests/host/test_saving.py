"""Save Checkpoint with a CLIP or a VAE of another loader: what it writes can be opened again. In a real server."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comfy_host.server import Server
from graphs import SHIPPED, image_to_video, node
from safetensors import safe_open
from safetensors.torch import save_file

from dreamvideo_core.models.autoencoder import Autoencoder
from dreamvideo_core.models.config import AutoencoderConfig, TextConfig
from dreamvideo_core.weights.checkpoint import load_checkpoint
from dreamvideo_core.weights.expected_weights import kl_shapes, text_encoder_shapes


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def put(server: Server, folder: str, name: str, state: dict[str, torch.Tensor]) -> str:
    path = server.base.models / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.half().contiguous() for key, tensor in state.items()}, path)
    return name


def small_numbers(shapes: dict) -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, 0.01) for name, shape in shapes.items()}


def saved(server: Server, name: str, **more: dict) -> Path:
    """The file that Save Checkpoint writes of the shipped model with parts of `more`, where the loader lists it."""
    graph = {
        "loaded": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "save": node("CheckpointSave", model=["loaded", 0], clip=["loaded", 1], vae=["loaded", 2], filename_prefix=name),
        **more,
    }
    graph["save"]["inputs"] |= {part: [part, 0] for part in more}
    server.client.run(graph)
    place = server.base.models / "checkpoints" / f"{name}.safetensors"
    place.parent.mkdir(exist_ok=True)
    return next(server.output.glob(f"{name}_*.safetensors")).rename(place)


def opens(server: Server, path: Path, **more: dict) -> None:
    """A clip is made with the file, and with parts of `more` for those that it lacks."""
    graph = image_to_video() | more
    graph["model"]["inputs"]["checkpoint"] = path.name
    for entry in graph.values():
        for key, value in entry["inputs"].items():
            if value in (["model", 1], ["model", 2]) and key in more:
                entry["inputs"][key] = [key, 0]
    server.client.run(graph)


def test_a_stock_vae_is_described_and_written(any_server: Server):
    """Stable Diffusion's, of its real size."""
    config = AutoencoderConfig("kl")
    name = put(any_server, "vae", "stock.safetensors", small_numbers(kl_shapes(config)))
    path = saved(any_server, "with_stock_vae", vae=node("VAELoader", vae_name=name))
    checkpoint = load_checkpoint(path)
    assert checkpoint.config.vae == config and not checkpoint.lacks()
    opens(any_server, path)
    path.unlink()


def test_a_vae_for_other_latents_is_left_out(any_server: Server, tmp_path: Path):
    state = Autoencoder(16).state_dict()
    name = put(any_server, "vae", "sixteen.safetensors", state)
    path = saved(any_server, "with_other_vae", vae=node("VAELoader", vae_name=name))
    assert load_checkpoint(path).lacks() == ("vae",)
    assert "the VAE that is connected is of another kind than this model's" in any_server.log_path.read_text(errors="replace")
    put(any_server, "vae", "four.safetensors", Autoencoder(4).initialise().state_dict())
    opens(any_server, path, vae=node("VAELoader", vae_name="four.safetensors"))


def test_a_clip_of_another_width_is_left_out(any_server: Server):
    name = put(any_server, "text_encoders", "clip_l.safetensors", small_numbers(text_encoder_shapes(TextConfig())))
    clip = node("CLIPLoader", clip_name=name, type="stable_diffusion")
    path = saved(any_server, "with_other_clip", clip=clip)
    assert load_checkpoint(path).lacks() == ("text_encoder",)
    assert "Load CLIP brings it" in any_server.log_path.read_text(errors="replace")
    any_server.client.run({
        "model": node("LoadDreamVideo", checkpoint=path.name, weight_dtype="default"),
        "save": node("CheckpointSave", model=["model", 0], clip=["own", 1], vae=["own", 2], filename_prefix="with_own_clip"),
        "own": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
    })  # fmt: skip
    assert not load_checkpoint(next(any_server.output.glob("with_own_clip_*.safetensors"))).lacks()


def test_a_model_whose_sampling_a_node_has_changed_can_be_opened(any_server: Server):
    """ComfyUI's saver adds tensors of its own then."""
    changed = node("ModelSamplingContinuousEDM", model=["loaded", 0], sampling="v_prediction", sigma_max=100.0, sigma_min=0.01)
    path = saved(any_server, "with_edm", model=changed)
    with safe_open(path, "pt") as file:
        assert "edm_vpred.sigma_max" in file.keys()
    opens(any_server, path)
