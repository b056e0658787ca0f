"""Which precision Load DreamVideo gives a model on a CPU, and that layers compute in it. In process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from deviation import relative_error
from graphs import FRAMES, SHIPPED, SIZE
from sampling import sample
from tiny import TINY, random_pipeline

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="ComfyUI computes on the GPU here")

NAME = "random.safetensors"
LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.GroupNorm, torch.nn.LayerNorm)


@pytest.fixture(scope="module")
def parameters(host: InProcessComfyUI) -> int:
    """Writes a random model; how many parameters it has."""
    pipeline = random_pipeline()
    folder = host.base.models / "dreamvideo"
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.save(folder / NAME, parts=("unet", "retention"), dtype=torch.float32)
    return sum(weight.numel() for weight in pipeline.model.parameters())


@pytest.fixture
def precision(host: InProcessComfyUI, parameters: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The core's module: a CPU that computes in bfloat16, and a bar that the random model is just above."""
    module = host.module("dreamvideo_core.models.precision")
    monkeypatch.setattr(module, "cpu_computes_in_bfloat16", lambda: True)
    monkeypatch.setattr(module, "LARGE", parameters - 1)
    return module


def load(host: InProcessComfyUI, weight_dtype: str) -> Any:
    return host.call("LoadDreamVideo", checkpoint=NAME, weight_dtype=weight_dtype)[0]


def dtypes(patcher: Any) -> tuple[set[torch.dtype], torch.dtype]:
    """Of the weights, and of what layers compute in."""
    model = patcher.model
    return {weight.dtype for weight in model.diffusion_model.parameters()}, model.get_dtype_inference()


def sampled(host: InProcessComfyUI, model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    width = TINY.unet.cross_attention_dim
    positive, negative = ([[torch.randn(1, 77, width, generator=generator), {}]] for _ in range(2))
    image = torch.rand(1, SIZE, SIZE, 3, generator=generator)
    conditioned = host.call(
        "RetentionEncode", positive=positive, negative=negative, image=image, width=SIZE, height=SIZE, frames=FRAMES,
        batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    return sample(host, model, conditioned, steps=1)


def test_large_models_compute_in_bfloat16_by_default(host, precision):
    whole = sampled(host, load(host, "fp32"))
    model = load(host, "default")
    assert dtypes(model) == ({torch.bfloat16}, torch.bfloat16)
    assert model.model.manual_cast_dtype is None
    seen = set()

    def watch(layer: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        seen.add((inputs[0].dtype, output.dtype))

    layers = [layer for layer in model.model.diffusion_model.modules() if isinstance(layer, LAYERS)]
    assert not any(layer.comfy_cast_weights for layer in layers)
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    half = sampled(host, model)
    for hook in hooks:
        hook.remove()
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    assert half.dtype == torch.float32
    assert 0 < relative_error(half, whole) < 0.05


def test_bf16_is_not_cast_to_float32_where_a_person_chooses_it(host, precision):
    model = load(host, "bf16")
    assert dtypes(model) == ({torch.bfloat16}, torch.bfloat16)
    assert torch.equal(sampled(host, model), sampled(host, load(host, "default")))


@pytest.mark.parametrize(
    ("weight_dtype", "weights", "cast"),
    [("fp32", torch.float32, None), ("fp16", torch.float16, torch.float32), ("fp8_e4m3fn", torch.float8_e4m3fn, torch.float32)],
)
def test_other_choices_stay_as_they_are(host, precision, weight_dtype, weights, cast):
    model = load(host, weight_dtype)
    assert dtypes(model)[0] == {weights}
    assert model.model.manual_cast_dtype == cast


@pytest.mark.parametrize("less", ["parameters", "instructions"])
def test_without_either_all_is_as_comfyui_has_it(host, precision, parameters, monkeypatch, less):
    if less == "parameters":
        monkeypatch.setattr(precision, "LARGE", parameters)
    else:
        monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: False)
    model = load(host, "default")
    assert dtypes(model) == ({torch.float32}, torch.float32)
    assert torch.equal(sampled(host, model), sampled(host, load(host, "fp32")))
    assert load(host, "bf16").model.manual_cast_dtype == torch.float32


@pytest.mark.parametrize("flag", ["force_fp32", "fp32_unet"])
def test_whoever_starts_comfyui_for_float32_has_it(host, precision, monkeypatch, flag):
    from comfy import cli_args, model_management

    monkeypatch.setattr(cli_args.args, flag, True)
    monkeypatch.setattr(model_management, "FORCE_FP32", flag == "force_fp32")
    assert dtypes(load(host, "default")) == ({torch.float32}, torch.float32)
    assert load(host, "bf16").model.manual_cast_dtype == torch.float32


def test_the_shipped_model_is_below_the_bar(host, monkeypatch):
    module = host.module("dreamvideo_core.models.precision")
    monkeypatch.setattr(module, "cpu_computes_in_bfloat16", lambda: True)
    files, loader = host.module("nodes.host.files"), host.module("nodes.host.loader")
    model = loader.load_patcher(loader.Source(files.checkpoint_path(SHIPPED)), "default").model
    assert {weight.dtype for weight in model.diffusion_model.parameters()} == {torch.float32}
