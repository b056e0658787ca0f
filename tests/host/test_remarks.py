"""What nodes say of their results: in ComfyUI's answers, and where another executor calls the nodes."""

from __future__ import annotations

import pytest
import torch
from chains import ONE, TWO, chain
from comfy_host.server import Server
from graphs import SHIPPED, node

MADE_FOR = "made for 128 x 128, 8 frames, 5 steps, scales 1.15 / 1.15"
FIDELITY = "FFF_SSIM 1.000, FFF_CLIP is not measured: connect clip_vision"


def graph() -> dict:
    return {
        "model": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "text": node("CLIPTextEncode", clip=["model", 1], text="the red circle moves left"),
        "latent": node("EmptyLatentImage", width=32, height=32, batch_size=2),
        "frames": node("VAEDecode", samples=["latent", 0], vae=["model", 2]),
        "fidelity": node("FirstFrameFidelity", image=["frames", 0], frames=["frames", 0], fit="crop"),
        "show": node("PreviewAny", source=["fidelity", 0]),
        "metrics": node("VideoMetrics", frames=["frames", 0], reference=["frames", 0]),
    }


@pytest.mark.parametrize("name", ["server", "server_0_16_3"])
def test_a_run_answers_with_remarks(request: pytest.FixtureRequest, name: str):
    server: Server = request.getfixturevalue(name)
    server.client.post("/free", {"unload_models": False, "free_memory": True})  # 0.16.3 says nothing of what it has kept
    outputs = server.client.run(graph()).outputs
    assert outputs["model"]["dreamvideo_remark"] == [MADE_FOR]
    assert outputs["fidelity"]["dreamvideo_remark"] == [FIDELITY]
    assert outputs["metrics"]["dreamvideo_remark"] == ["SSIM, mean 1.000"] and outputs["metrics"]["images"]


def test_a_cached_run_answers_with_them_again(server: Server):
    server.client.run(graph())
    execution = server.client.run(graph())
    assert execution.executed == []
    said = {name: output["dreamvideo_remark"] for name, output in execution.outputs.items() if "dreamvideo_remark" in output}
    assert said == {"model": [MADE_FOR], "fidelity": [FIDELITY], "metrics": ["SSIM, mean 1.000"]}


def test_a_chain_that_is_cached_lists_its_stages_again(server: Server):
    lines = [f"stage {n} of 2, seed {2 + n}: {text}" for n, text in ((1, ONE), (2, TWO))]
    for _ in range(2):
        execution = server.client.run(chain(ONE, TWO))
        assert execution.outputs["chain"]["dreamvideo_remark"] == lines
    assert "chain" not in execution.executed


ALONE = {
    "LoadDreamVideo": {"checkpoint": SHIPPED},
    "FirstFrameFidelity": {"image": torch.zeros(1, 32, 32, 3), "frames": torch.zeros(2, 32, 32, 3)},
    "VideoMetrics": {"frames": torch.zeros(2, 32, 32, 3), "reference": torch.zeros(1, 32, 32, 3)},
    "ClipGrid": {
        "clips": {"clip0": torch.zeros(2, 32, 32, 3)}, "captions": "one", "columns": 1, "show": "moving", "frames": "0",
    },
}  # fmt: skip


@pytest.mark.parametrize("node_id", ALONE)
def test_an_executor_without_hidden_values_and_without_a_server(host, node_id: str, monkeypatch: pytest.MonkeyPatch):
    """As packs call nodes that run workflows by themselves: the class as it is, with what the node needs."""
    from server import PromptServer

    monkeypatch.delattr(PromptServer, "instance")
    made = host.nodes[node_id].EXECUTE_NORMALIZED(**ALONE[node_id])
    types = host.nodes[node_id].RETURN_TYPES
    missing = [kind for kind, value in zip(types, made.args, strict=True) if value is None]
    assert missing == (["CLIP_VISION"] if node_id == "LoadDreamVideo" else [])  # the shipped model does not see by CLIP


def test_words_that_utf_8_does_not_have(host, monkeypatch: pytest.MonkeyPatch):
    """As a file's name can be on Linux, and a JSON string everywhere."""
    from server import PromptServer

    sent = []
    monkeypatch.setattr(PromptServer.instance, "send_sync", lambda event, data, sid=None: sent.append(data))
    host.module("nodes.host.messages").say("3", "model \udcff.safetensors")
    assert sent[0].endswith(b"model ?.safetensors")
