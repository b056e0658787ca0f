"""ComfyUI's own TorchCompileModel before our nodes: the same clip, and passes compiled once for all sentences and pictures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server
from graphs import FRAMES, SHIPPED, SIZE, image_to_video, node
from safetensors.torch import load_file
from sampling import sample


@pytest.fixture
def compiled_sizes(host: InProcessComfyUI, monkeypatch) -> Iterator[list[int]]:
    """The sizes of what was compiled by the backend "counting", with the attention that ComfyUI has on NVIDIA GPUs."""
    from comfy.ldm.modules import attention

    monkeypatch.setattr(host.module("nodes.host.unet"), "optimized_attention", attention.attention_pytorch)
    sizes: list[int] = []

    def counting(module: torch.fx.GraphModule, inputs: list) -> object:
        sizes.append(len(module.graph.nodes))
        return module.forward

    torch._dynamo.reset()
    torch._dynamo.register_backend(counting)
    yield sizes
    torch._dynamo.backends.registry._COMPILER_FNS.pop("counting")
    torch._dynamo.reset()


def test_passes_are_compiled_whole_and_once_for_all_sentences_and_pictures(host, compiled_sizes):
    model, clip, _, _ = host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")
    (compiled,) = host.call("TorchCompileModel", model=model, backend="counting")
    counts = []
    for number, text in enumerate(("the red circle moves left", "a blue star grows", "a blue star grows")):
        positive, negative = (host.call("CLIPTextEncode", clip=clip, text=words)[0] for words in (text, ""))
        picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(number))
        given = host.call(
            "RetentionEncode", positive=positive, negative=negative, image=picture, width=SIZE, height=SIZE, frames=FRAMES,
            batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
        )  # fmt: skip
        torch.testing.assert_close(sample(host, compiled, given), sample(host, model, given), rtol=1e-3, atol=1e-3)
        counts.append(len(compiled_sizes))
    assert counts[0] == counts[1] == counts[2]
    # encode, retain and decode are hundreds of operations each; what else is compiled, such as conv_s, is a few.
    assert sum(size > 300 for size in compiled_sizes) == 3


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
