"""ComfyUI's --force-channels-last: weights over time, which have no such order, do not keep the model from loading."""

from __future__ import annotations

import torch
from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.server import Server
from graphs import image_to_video, node
from safetensors.torch import load_file


def latents(server: Server) -> torch.Tensor:
    graph = image_to_video("dreamvideo_two_sprites.png")
    graph["keep"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="kept")
    execution = server.client.run(graph)
    item = next(file for file in execution.saved() if file["filename"].endswith(".latent"))
    return load_file(server.output / item["subfolder"] / item["filename"])["latent_tensor"]


def test_a_clip_is_the_same(server: Server, tmp_path):
    base = BaseDirectory(tmp_path / "base").prepare()
    with Server(releases.locate(), base, arguments=("--force-channels-last",)) as other:
        made = latents(other)
    torch.testing.assert_close(made, latents(server), rtol=1e-3, atol=1e-3)
