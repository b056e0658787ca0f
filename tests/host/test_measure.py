"""The measuring nodes: their figures against the core's and transformers', and what they say of bad input."""

from __future__ import annotations

import json
import logging
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server
from graphs import node
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamvideo_core.evaluation.metrics import first_frame_ssim

PICTURE = "dreamvideo_two_sprites.png"
SIDE = 32
TINY = {
    "image_size": SIDE, "patch_size": 16, "num_channels": 3, "hidden_size": 64, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 1, "projection_dim": 16, "hidden_act": "quick_gelu",
}  # fmt: skip
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def noise(count: int, height: int = SIDE, width: int = SIDE) -> torch.Tensor:
    """ComfyUI's images of bytes, for CLIP sees no more."""
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator) / 255


def random_clip(**config) -> CLIPVisionModelWithProjection:
    """transformers' CLIP with weights of such a size that other pictures have other embeddings."""
    torch.manual_seed(0)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**config)).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


@pytest.fixture(scope="module")
def reference() -> CLIPVisionModelWithProjection:
    return random_clip(**TINY)


@pytest.fixture(scope="module")
def clip_vision(host: InProcessComfyUI, reference: CLIPVisionModelWithProjection, tmp_path_factory: pytest.TempPathFactory):
    """ComfyUI's CLIP_VISION with the same weights. Its loader knows no CLIP that is so small."""
    from comfy.clip_vision import ClipVisionModel

    config = tmp_path_factory.mktemp("clip_vision") / "config.json"
    config.write_text(json.dumps({**TINY, "model_type": "clip_vision_model"}))
    model = ClipVisionModel(config)
    assert not model.load_sd(reference.state_dict()).missing_keys
    return model


@torch.no_grad()
def cosines(reference: CLIPVisionModelWithProjection, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """By transformers, of ComfyUI's images of the model's size."""
    values = [(images.movedim(-1, 1) - _column(MEAN)) / _column(STD) for images in (first, second)]
    return F.cosine_similarity(*(reference(pixel_values=v).image_embeds for v in values))


def _column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def test_first_frame_fidelity_agrees_with_transformers(host, clip_vision, reference, caplog):
    caplog.set_level(logging.INFO, "DreamVideo")
    picture, frames = noise(1), noise(3)
    similarity, clip_similarity = host.call(
        "FirstFrameFidelity", image=picture, frames=frames, fit="crop", clip_vision=clip_vision
    )
    expected = float(cosines(reference, frames[:1], picture))
    assert clip_similarity == pytest.approx(expected, abs=2e-3) and abs(expected) < 0.9
    assert similarity == pytest.approx(float(first_frame_ssim(*(x[:1].movedim(-1, 1) * 2 - 1 for x in (frames, picture)))))
    assert f"FFF_CLIP {clip_similarity:.3f}" in caplog.text
    same = host.call("FirstFrameFidelity", image=frames, frames=frames, fit="crop", clip_vision=clip_vision)
    assert same == pytest.approx((1, 1), abs=1e-5)


def test_without_clip_vision_it_says_what_is_not_measured(host, caplog):
    caplog.set_level(logging.INFO, "DreamVideo")
    similarity, clip_similarity = host.call("FirstFrameFidelity", image=noise(1), frames=noise(2), fit="crop")
    assert math.isfinite(similarity) and math.isnan(clip_similarity)
    assert "FFF_CLIP is not measured: connect clip_vision" in caplog.text


def test_the_metrics_of_a_clip(host, clip_vision, reference, caplog):
    caplog.set_level(logging.INFO, "DreamVideo")
    frames, others = noise(20), noise(21)[:20]
    mean, plot = host.call("VideoMetrics", frames=frames, reference=others, clip_vision=clip_vision)
    assert mean == pytest.approx(float(first_frame_ssim(*(x.movedim(-1, 1) * 2 - 1 for x in (frames, others))).mean()))
    assert f"CLIP, mean {cosines(reference, frames, others).mean():.2f}" in caplog.text
    assert plot.shape[0] == 1 and plot.shape[-1] == 3 and 0 <= plot.min() < plot.max() <= 1
    alone, other_plot = host.call("VideoMetrics", frames=frames, reference=others)
    assert alone == mean and not torch.equal(plot, other_plot)


def test_one_picture_is_the_reference_of_all_frames(host):
    frames = noise(3)
    mean, _ = host.call("VideoMetrics", frames=frames, reference=frames[:1])
    assert mean == pytest.approx(host.call("VideoMetrics", frames=frames, reference=frames[:1].expand(3, -1, -1, -1))[0])
    assert host.call("VideoMetrics", frames=frames, reference=frames)[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("node_id", "inputs", "words"),
    [
        (
            "VideoMetrics",
            {"frames": noise(2), "reference": noise(2, 16)},
            "reference is 32 x 16 pixels, but frames are 32 x 32",
        ),
        ("VideoMetrics", {"frames": noise(3), "reference": noise(2)}, "reference has 2 pictures for 3 frames"),
        ("VideoMetrics", {"frames": noise(2)[:0], "reference": noise(2)}, r"frames has shape \(0, 32, 32, 3\)"),
        ("VideoMetrics", {"frames": noise(2), "reference": noise(2)[:0]}, r"reference has shape \(0, 32, 32, 3\)"),
        ("VideoMetrics", {"frames": noise(2) / 0, "reference": noise(2)}, "frames has values that are no numbers"),
        ("VideoMetrics", {"frames": noise(1, 5), "reference": noise(1, 5)}, "frames: 32 x 5 pixels; allowed: 6 x 6 or more"),
        ("FirstFrameFidelity", {"frames": noise(1, 5), "image": noise(1)}, "frames: 32 x 5 pixels"),
    ],
)
def test_bad_input_is_said_by_name(host, node_id, inputs, words):
    with pytest.raises(ValueError, match=words):
        host.call(node_id, **inputs)


def test_a_vision_model_that_is_no_clip(host):
    with pytest.raises(ValueError, match="clip_vision is a model of type dinov2; allowed: CLIP"):
        host.call("VideoMetrics", frames=noise(1), reference=noise(1), clip_vision=SimpleNamespace(model_type="dinov2"))


def test_embeddings_that_are_no_numbers(host):
    broken = SimpleNamespace(
        model_type="clip_vision_model", encode_image=lambda images: {"image_embeds": torch.full((len(images), 4), math.nan)}
    )
    with pytest.raises(ValueError, match="the output of clip_vision has values that are no numbers"):
        host.call("FirstFrameFidelity", image=noise(1), frames=noise(1), clip_vision=broken)


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def measuring(clip_vision: dict | None) -> dict:
    """A picture against its mirror image, measured and shown; `clip_vision` is a node that loads a CLIP."""
    graph = {
        "picture": node("LoadImage", image=PICTURE),
        "mirrored": node("ImageFlip", image=["picture", 0], flip_method="y-axis: horizontally"),
        "fidelity": node("FirstFrameFidelity", image=["picture", 0], frames=["mirrored", 0], fit="crop"),
        "metrics": node("VideoMetrics", frames=["mirrored", 0], reference=["picture", 0]),
        "keep": node("SaveFrames", frames=["metrics", 1], name="plot"),
        **{f"show{n}": node("PreviewAny", source=["fidelity", n]) for n in range(2)},
        "show_mean": node("PreviewAny", source=["metrics", 0]),
    }
    if clip_vision is not None:
        graph["clip_vision"] = clip_vision
        for name in ("fidelity", "metrics"):
            graph[name]["inputs"]["clip_vision"] = ["clip_vision", 0]
    return graph


def shown(execution, name: str) -> float:
    return float(execution.outputs[name]["text"][0])


def test_a_graph_without_clip(any_server: Server):
    execution = any_server.client.run(measuring(None))
    assert 0 < shown(execution, "show0") < 1 and math.isnan(shown(execution, "show1"))
    assert shown(execution, "show_mean") == pytest.approx(shown(execution, "show0"))
    seen = execution.outputs["metrics"]["images"][0]
    picture = Image.open(any_server.workspace / seen["type"] / seen["filename"])
    assert load_file(any_server.output / "plot.safetensors")["frames"].shape == (1, picture.height, picture.width, 3)


@pytest.mark.slow
def test_a_graph_with_a_clip_of_true_size(server: Server):
    """ComfyUI's loader reads CLIP-ViT-L and larger; this file has its layout, 24 layers and random weights."""
    size = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    model = random_clip(**size, patch_size=14, projection_dim=768).half()
    folder = server.base.models / "clip_vision"
    folder.mkdir(exist_ok=True)
    save_file(model.state_dict(), folder / "random.safetensors")
    server.client.get("/object_info/CLIPVisionLoader")  # lists the folder anew
    execution = server.client.run(measuring(node("CLIPVisionLoader", clip_name="random.safetensors")))
    assert -1 <= shown(execution, "show1") < 0.9999
