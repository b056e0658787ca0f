"""`cuda_graphs` of Load DreamVideo, with a stand-in for graphs where there is no GPU: the same clips, and where it has none."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
from recording import without_a_gpu
from sampling import sample


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    """MODEL, CLIP and VAE, loaded on a device that passes for a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.module("nodes.host.loader"), "graphs_available", lambda device: True)
        return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default", cuda_graphs=True)


@pytest.fixture(scope="module")
def plain(host: InProcessComfyUI) -> object:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")[0]


@pytest.fixture
def recorded(host: InProcessComfyUI, monkeypatch) -> list:
    """The shapes of the passes that were recorded."""
    return without_a_gpu(host.module("dreamvideo_core.sampling.cuda_graphs"), monkeypatch)


def conditioned(host: InProcessComfyUI, clip: object, **inputs) -> tuple:
    texts = [host.call("CLIPTextEncode", clip=clip, text=t)[0] for t in ("the red circle moves left", "")]
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    inputs = {"frames": FRAMES, "batch_size": 2, "fit": "crop", "strength": 1.0, "start": 0.0, "end": 1.0, **inputs}
    return host.call("RetentionEncode", positive=texts[0], negative=texts[1], image=picture, width=SIZE, height=SIZE, **inputs)


@pytest.mark.parametrize(
    ("retention", "sampling", "passes"),
    [
        ({}, {}, 3),
        ({"strength": 0.5}, {}, 3),
        ({}, {"retention_every": 2, "text_scale": 1.5, "image_scale": 1.5}, 2),  # the branch runs twice: plain, then recorded
    ],
    ids=["plain", "half the strength", "savings"],
)
def test_the_same_clip(host, loaded, plain, recorded, retention, sampling, passes):
    given = conditioned(host, loaded[1], **retention)
    made, expected = (sample(host, model, given, steps=4, **sampling) for model in (loaded[0], plain))
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    assert len(recorded) >= passes
    before = len(recorded)
    sample(host, plain, given, steps=4)
    assert len(recorded) == before


def test_a_chain_knows_both_models_as_one(host, loaded, plain):
    identify = host.module("nodes.host.identity").identify
    assert identify(loaded[0]) == identify(plain)


def test_graphs_end_with_their_run(host, loaded, recorded, monkeypatch):
    """A guider that ComfyUI keeps must not keep them, for ComfyUI cannot take their memory back."""
    module, alive = host.module("nodes.host.cuda_graphs"), weakref.WeakSet()
    make = module.GraphedModel
    monkeypatch.setattr(module, "GraphedModel", lambda unet: alive.add(made := make(unet)) or made)
    positive, negative, latent = conditioned(host, loaded[1])
    (guider,) = host.call(
        "DreamVideoGuider", model=loaded[0], positive=positive, negative=negative, text_scale=2.0, image_scale=1.5,
        order="text_first",
    )  # fmt: skip
    (noise,), (sampler,) = host.call("RandomNoise", noise_seed=0), host.call("KSamplerSelect", sampler_name="ddim")
    (sigmas,) = host.call("BasicScheduler", model=loaded[0], scheduler="simple", steps=3, denoise=1.0)
    gc.disable()
    try:
        for run in (1, 2):
            host.call("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)
            assert len(recorded) == run * 3
            assert not alive
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}), "another node has put a patch into its decoder"),
        (("PerturbedAttentionGuidance", {"scale": 1.0}), "another node has put a patch into its attention"),
        (("TorchCompileModel", {"backend": "eager"}), "it is compiled"),
    ],
    ids=["FreeU", "PerturbedAttentionGuidance", "TorchCompileModel"],
)
def test_not_where_a_graph_would_leave_something_out(host, loaded, plain, recorded, caplog, node, words):
    given = conditioned(host, loaded[1])
    with torch.compiler.set_stance("force_eager"):
        made, expected = (sample(host, host.call(node[0], model=model, **node[1])[0], given) for model in (loaded[0], plain))
    torch.testing.assert_close(made, expected, rtol=0, atol=0)
    assert not recorded
    said = [record.getMessage() for record in caplog.records if "CUDA graphs" in record.getMessage()]
    assert len(said) == 1 and words in said[0]


def test_not_where_hooks_change_weights(host, loaded, recorded, caplog, monkeypatch):
    monkeypatch.setattr(loaded[0], "hook_patches", {"hook": {}})
    sample(host, loaded[0], conditioned(host, loaded[1]), steps=4)
    assert not recorded and "hooks change its weights" in caplog.text


def test_not_from_the_step_on_in_which_weights_leave_the_gpu(host, loaded, plain, recorded, monkeypatch):
    given, steps = conditioned(host, loaded[1]), []

    def hindrance(*_: object) -> str | None:
        steps.append(len(steps))
        return "its weights have left" if len(steps) > 2 else None

    monkeypatch.setattr(host.module("nodes.host.cuda_graphs"), "_hindrance", hindrance)
    made = sample(host, loaded[0], given, steps=5)
    torch.testing.assert_close(made, sample(host, plain, given, steps=5), rtol=0, atol=0)
    assert len(recorded) == 3 and len(steps) == 5


def test_not_where_weights_are_not_whole_in_the_gpus_memory(host, loaded, recorded, caplog, monkeypatch):
    kind = type(loaded[0].model)
    monkeypatch.setattr(kind, "model_lowvram", property(lambda model: True, lambda model, value: None), raising=False)
    sample(host, loaded[0], conditioned(host, loaded[1]))
    assert not recorded and "not whole in the GPU's memory" in caplog.text


def test_without_a_gpu_it_is_said_once_and_changes_nothing(host, plain, caplog):
    with caplog.at_level(logging.INFO, "DreamVideo"):
        model, clip, _, _ = host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default", cuda_graphs=True)
    assert "cuda_graphs: no effect without an NVIDIA GPU" in caplog.text
    given = conditioned(host, clip)
    torch.testing.assert_close(sample(host, model, given), sample(host, plain, given), rtol=0, atol=0)
    assert caplog.text.count("NVIDIA") == 1
