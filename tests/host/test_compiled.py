"""ComfyUI's own TorchCompileModel before our nodes: the same clip."""

from __future__ import annotations

import pytest
import torch
from comfy_host.server import Server
from graphs import image_to_video, node
from safetensors.torch import load_file


def latents(server: Server, backend: str | None, retention: dict, sampling: dict) -> torch.Tensor:
    graph = image_to_video("dreamvideo_two_sprites.png", **retention)
    graph = {name: entry for name, entry in graph.items() if name not in ("decode", "save")}
    graph["sampler"]["inputs"] |= {"steps": 4, **sampling}
    if backend is not None:
        graph["compiled"] = node("TorchCompileModel", model=["model", 0], backend=backend)
        graph["sampler"]["inputs"]["model"] = ["compiled", 0]
    graph["keep"] = node("SaveLatent", samples=["sampler", 0], filename_prefix="kept")
    item = next(iter(server.client.run(graph).saved()))
    return load_file(server.output / item["subfolder"] / item["filename"])["latent_tensor"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["inductor", "cudagraphs"])
@pytest.mark.parametrize(
    ("retention", "sampling"),
    [({}, {}), ({"start": 0.4}, {}), ({}, {"retention_every": 2, "guidance_end": 0.5}), ({}, {"text_scale": 1.5})],
    ids=["plain", "image late", "savings", "equal scales"],
)
def test_a_compiled_model_gives_the_same_clip(server: Server, backend: str, retention: dict, sampling: dict):
    made, plain = (latents(server, name, retention, sampling) for name in (backend, None))
    torch.testing.assert_close(made, plain, rtol=1e-3, atol=1e-3)
