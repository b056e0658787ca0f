"""What is timed: each function is one row of the table, a list of measures."""

from __future__ import annotations

import atexit
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from comfyui_pipeline import ComfyUIPipeline
from diffusers_model import DiffusersDreamVideo
from einops import rearrange
from gauge import Gauge
from host import BaseDirectory, InProcessComfyUI, Server, comfyui_in_process, releases
from random_checkpoint import random_checkpoint
from timing import alternate, matrix_product_rate, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamvideo_core.media.images import white_image
from dreamvideo_core.models.config import PRESETS
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.kernels.fused import lay_out_weights
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.sampling.cuda_graphs import GraphedModel
from dreamvideo_core.sampling.guidance import Guidance, guidance_weights
from dreamvideo_core.sampling.guided_step import GuidedModel, Passes
from dreamvideo_core.sampling.pipeline import SHIPPED, Pipeline
from dreamvideo_core.weights.sources import open_model

GIB = 2**30
FRAMES = (1, 8, 16, 32)
SIZES = (64, 96, 128, 192, 256)
FULL_SIZES = (128, 192, 256, 384, 512)
# Height, width, frames and rounds: the paper's size, and that of public models for photographs.
BF16_SHAPES = ((256, 256, 8, 3), (320, 512, 16, 1))


@dataclass(frozen=True)
class Measure:
    """One figure; `bar` is what it is held against, `at_most` whether smaller is better."""

    what: str
    value: float
    unit: str = "x"
    bar: float | None = None
    at_most: bool = False

    @property
    def held(self) -> bool | None:
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


@dataclass(frozen=True)
class Machine:
    """Where and how precisely it is timed, and how often."""

    device: torch.device
    dtype: torch.dtype
    repeats: int

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"


class FullSize:
    """The full-size model with random weights, and one set of inputs."""

    def __init__(self, preset: str, machine: Machine, size: int, frames: int):
        self.machine, self.config = machine, replace(PRESETS[preset], text_encoder=None, vae=None)
        torch.manual_seed(0)
        self.model = DreamVideo(self.config, Operations(dtype=machine.dtype, device=machine.device)).eval()
        channels, width = self.config.unet.in_channels, self.config.unet.cross_attention_dim
        self.latents = self._random(1, frames, channels, size // 8, size // 8)
        self.texts = {True: self._random(1, 77, width), False: self._random(1, 77, width)}
        white = white_image(1, size, size, device=machine.device, dtype=machine.dtype)
        self.images = {True: self._random(1, 3, size, size).clamp(-1, 1), False: white}
        self.timesteps = torch.tensor([500], device=machine.device)
        self.diffusers = DiffusersDreamVideo(self.model, self.config)
        lay_out_weights(self.model, machine.device)  # as `Pipeline.to` does; diffusers' U-Net keeps those of torch
        self.passes: Passes = GraphedModel(self.model) if machine.on_gpu else self.model  # as in `Pipeline`

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.machine.device, dtype=self.machine.dtype)

    def evaluate(self, passes: Passes, text: bool = True, image: bool | None = None) -> Tensor:
        """f(text, image), of the U-Net alone where `image` is None."""
        frames, num_frames, encoding = self.latents.flatten(0, 1), self.latents.shape[1], self.texts[text]
        encoded, residuals = passes.encode(frames, self.timesteps, encoding, num_frames), None
        if image is not None:
            residuals = passes.retain(frames, passes.image_map(self.images[image]), self.timesteps, encoding, num_frames)
        return passes.decode(encoded, residuals).unflatten(0, (1, num_frames))


def forward(full: FullSize) -> Iterator[Measure]:
    """One pass of the U-Net alone, against diffusers' on the same tensors."""
    machine, calls = full.machine, _passes(full)
    if machine.on_gpu:
        calls["launched"] = lambda: full.evaluate(full.model)
    times, made = _race(calls, machine)
    yield Measure(
        "relative error against diffusers", _relative_error(made["ours"], made["diffusers"]), "", _tolerance(machine), True
    )
    yield Measure("seconds", times["ours"], "s")
    yield Measure("times as fast as diffusers", times["diffusers"] / times["ours"], bar=1.5 if machine.on_gpu else 1.0)
    yield _share_of_products(full, times["ours"])
    peaks = {name: _peak(call, machine.device) for name, call in calls.items()}
    plain = peaks["launched" if machine.on_gpu else "ours"]
    yield Measure("peak beside the weights, of diffusers'", plain / peaks["diffusers"], bar=1.0, at_most=True)
    if machine.on_gpu:
        yield Measure("times as fast as diffusers, without CUDA graphs", times["diffusers"] / times["launched"])
        anew = GraphedModel(full.model)
        recorded = _peak(lambda: [full.evaluate(anew) for _ in range(3)], machine.device)
        yield Measure("peak while graphs are recorded, of diffusers'", recorded / peaks["diffusers"], bar=1.0, at_most=True)


def _passes(full: FullSize) -> dict[str, Callable[[], Tensor]]:
    return {"ours": lambda: full.evaluate(full.passes), "diffusers": _diffusers_pass(full, full.diffusers.unet)}


def _diffusers_pass(full: FullSize, unet: nn.Module) -> Callable[[], Tensor]:
    volume = rearrange(full.latents, "b t c h w -> b c t h w")
    return lambda: rearrange(unet(volume, full.timesteps, full.texts[True]).sample, "b c t h w -> b t c h w")


def _share_of_products(full: FullSize, seconds: float) -> Measure:
    """How near a pass of so many seconds comes to the rate of one large product of matrices."""
    machine = full.machine
    shapes = DreamVideo(full.config, Operations(dtype=machine.dtype, device="meta"))
    inputs = [tensor.to("meta") for tensor in (full.latents, full.timesteps, full.texts[True])]
    rate = _flops(lambda: shapes(*inputs)) / seconds
    ceiling = matrix_product_rate(machine.dtype, machine.device, size=8192 if machine.on_gpu else 4096)
    bar = 0.35 if machine.on_gpu and machine.dtype == torch.bfloat16 else None
    return Measure("share of a matrix product's rate", rate / ceiling, "", bar)


def compiled(full: FullSize) -> Iterator[Measure]:
    """The same pass behind torch.compile, which ComfyUI's own node TorchCompileModel does to a model."""
    module = torch.compile(full.model, dynamic=False)
    yield from _compiled(full, lambda: module(full.latents, full.timesteps, full.texts[True]), "ours", "diffusers")


def diffusers_compiled(full: FullSize) -> Iterator[Measure]:
    """diffusers' pass behind torch.compile, against ours as it is."""
    module = torch.compile(full.diffusers.unet, dynamic=False)
    yield from _compiled(full, _diffusers_pass(full, module), "diffusers", "ours")


def _compiled(full: FullSize, fast: Callable[[], Tensor], name: str, other: str) -> Iterator[Measure]:
    machine = full.machine
    yield Measure("seconds until the first pass", seconds(fast, machine.device), "s")
    times, made = _race({"compiled": fast, **_passes(full)}, machine)
    error = _relative_error(made["compiled"], made[name])
    yield Measure(f"relative error against {name}, not compiled", error, "", _tolerance(machine), at_most=True)
    yield Measure("seconds", times["compiled"], "s")
    yield _share_of_products(full, times["compiled"])
    for compared in (name, other):  # ours, on a GPU, as CUDA graphs
        yield Measure(f"times as fast as {compared}, not compiled", times[compared] / times["compiled"])


def guided_step(full: FullSize) -> Iterator[Measure]:
    """One guided step with the branch, against separate full passes of ours and of diffusers'."""
    inputs, weights = (full.texts, full.images), guidance_weights(9.0, 5.0)

    def separate(weights: dict) -> Tensor:
        return sum(weight * full.evaluate(full.passes, *evaluation) for evaluation, weight in weights.items())

    def guided(*scales: float) -> Tensor:
        return GuidedModel(full.passes, *inputs, Guidance(*scales))(full.latents, 500)

    calls = {
        "shared": lambda: guided(9.0, 5.0),
        "equal": lambda: guided(7.0, 7.0),
        "separate": lambda: separate(weights),
        "diffusers": lambda: full.diffusers.step(full.latents, full.timesteps, *inputs, weights),
    }
    times, made = _race(calls, full.machine)
    tolerance = _tolerance(full.machine)
    error = _relative_error(made["shared"], made["separate"])
    yield Measure("relative error, shared against separate", error, "", tolerance, at_most=True)
    error = _relative_error(made["equal"], separate(guidance_weights(7.0, 7.0)))
    yield Measure("relative error, equal scales against separate", error, "", tolerance, at_most=True)
    error = _relative_error(made["shared"], made["diffusers"])
    most = max(map(abs, weights.values()))  # so often guidance multiplies what a pass differs from diffusers'
    yield Measure("relative error, shared against diffusers", error, "", tolerance * most, at_most=True)
    yield Measure("seconds", times["shared"], "s")
    yield Measure("times as fast as three passes of ours", times["separate"] / times["shared"], bar=1.08)
    yield Measure("the same with equal scales", times["separate"] / times["equal"], bar=1.45)
    yield Measure("times as fast as three calls of diffusers", times["diffusers"] / times["shared"], bar=1.35)


def whole_clip(machine: Machine, preset: str) -> Iterator[Measure]:
    """A clip in 50 steps, text encoding and decoding with it: by the shipped model, on a GPU by one of full size."""
    pipeline = _pipeline(machine, preset)
    own = pipeline.config.sampling
    image = torch.rand(1, 3, own.height, own.width, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def make(steps: int, graphs: bool = True) -> Tensor:
        pipeline.cuda_graphs = graphs
        return pipeline("the red circle moves left", image, steps=steps, text_scale=2.0, image_scale=1.5)

    make(2)  # kernels are chosen, graphs recorded
    total, inside = _timed(lambda: make(50), machine.device)
    flops = 50 * (_flops(lambda: make(2, graphs=False)) - _flops(lambda: make(1, graphs=False)))
    ceiling = matrix_product_rate(pipeline.model.dtype, machine.device, size=8192 if machine.on_gpu else 4096)
    yield Measure("seconds", total, "s")
    yield Measure("share of time outside the model", 1 - inside / total, "", bar=0.05, at_most=True)
    bar = 0.35 if machine.on_gpu else None
    yield Measure("share of a matrix product's rate, in the model", flops / inside / ceiling, "", bar)
    if machine.on_gpu:
        error = _relative_error(make(5), make(5, graphs=False))
        yield Measure("relative error of CUDA graphs against plain passes", error, "", bar=0.05, at_most=True)
        plainly, _ = _timed(lambda: make(50, graphs=False), machine.device)
        yield Measure("times as fast as without CUDA graphs", plainly / total)


@cache
def _pipeline(machine: Machine, preset: str) -> Pipeline:
    """The shipped model; on a GPU all parts of the preset with random weights, in bfloat16."""
    if not machine.on_gpu:
        return Pipeline.load()
    torch.manual_seed(0)
    with machine.device:
        pipeline = Pipeline.build(PRESETS[preset])
    return pipeline.to(machine.device, torch.bfloat16)


def _timed(make: Callable[[], Tensor], device: torch.device) -> tuple[float, float]:
    """Seconds of making a clip, and of the model in it."""
    inside = _Stopwatch(GuidedModel.__call__, device)
    with patch.object(GuidedModel, "__call__", inside):
        return seconds(make, device), inside.seconds


def _flops(call: Callable[[], Tensor]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class _Stopwatch:
    """Calls of a method, counted in seconds."""

    def __init__(self, method: Callable, device: torch.device):
        self.method, self.device, self.seconds = method, device, 0.0

    def __get__(self, instance, owner) -> Callable:
        def call(*arguments):
            result = []
            self.seconds += seconds(lambda: result.append(self.method(instance, *arguments)), self.device)
            return result[0]

        return call


def growth(machine: Machine, preset: str) -> Iterator[Measure]:
    """How the cost of one evaluation grows with frames and with size, the other at the model's own."""
    pipeline = _pipeline(machine, preset)
    pipeline.cuda_graphs = True
    own = pipeline.config.sampling
    for name, values in (("frames", FRAMES), ("pixels of a side", FULL_SIZES if machine.on_gpu else SIZES)):
        cases = [(value, own.height) if name == "frames" else (own.num_frames, value) for value in values]
        calls = {str(value): _evaluation(pipeline, *case) for value, case in zip(values, cases, strict=True)}
        times = alternate(calls, machine.repeats, machine.device)
        for value in values:
            yield Measure(f"{value} {name}", times[str(value)], "s")
        larger = values[1:]  # one frame, or very few pixels, is mostly overhead
        slope = np.polyfit(np.log(larger), np.log([times[str(v)] for v in larger]), 1)[0]
        yield Measure(f"time grows as {name} to the power of", float(slope), "")


def _evaluation(pipeline: Pipeline, frames: int, size: int) -> Callable[[], Tensor]:
    """f(t, i), its kernels chosen and its graphs recorded."""
    latents = torch.randn(1, frames, pipeline.config.unet.in_channels, size // 8, size // 8, device=pipeline.device)
    text = pipeline.text_encoder.encode(["the red circle moves left"])
    image = torch.rand(1, 3, size, size, device=pipeline.device)
    model = GuidedModel(pipeline.passes(latents.shape), {True: text}, {True: image}, Guidance(1.0, 1.0))
    for _ in range(2):
        model(latents, 500)
    return lambda: model(latents, 500)


def loading(machine: Machine, preset: str) -> Iterator[Measure]:
    """A full-size file in the page cache until the model could take a step, against reading its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{preset}.safetensors"
        random_checkpoint(preset, path)
        gauge = Gauge(torch.device("cpu"))
        calls = {"read": path.read_bytes, "load": lambda: _load(path, machine)}
        calls["read"]()  # into the page cache
        times = alternate(calls, 2, machine.device)
        gauge.reset()
        before = gauge.now()
        model = _load(path, machine)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        yield Measure("GiB of weights", weights / GIB, "GiB")
        yield Measure("seconds", times["load"], "s")
        yield Measure("times as long as reading the bytes", times["load"] / times["read"], bar=2.0, at_most=True)
        yield Measure("peak memory, of the weights", (gauge.peak() - before) / weights, bar=1.1, at_most=True)


def _load(path: Path, machine: Machine) -> DreamVideo:
    checkpoint = open_model(path)
    model = DreamVideo(checkpoint.config, Operations(device="meta"))
    for module, part in ((model.unet, "unet"), (model.retention, "retention")):
        module.load_state_dict(
            {name: tensor.to(machine.device) for name, tensor in checkpoint.parts[part].items()}, assign=True
        )
    return model


def start_of_comfyui() -> Iterator[Measure]:
    """What the pack adds to ComfyUI's start, as ComfyUI itself counts it."""
    with tempfile.TemporaryDirectory() as folder:
        base = BaseDirectory(Path(folder)).prepare()
        with Server(releases.locate(), base) as server:
            lines = [line for line in server.log_path.read_text().splitlines() if base.pack.name in line and "seconds" in line]
    taken = float(re.search(r"([\d.]+) seconds", lines[-1])[1])
    yield Measure("seconds", taken, "s", bar=0.3, at_most=True)


def in_comfyui(machine: Machine) -> Iterator[Measure]:
    """DualCFGSampler in ComfyUI against the core's own loop, the shipped model in the same precision, the same steps."""
    host = ComfyUIPipeline(SHIPPED, _comfyui())
    core = Pipeline.load(SHIPPED, machine.device, host.model.model.get_dtype_inference(), cuda_graphs=False)
    own = core.config.sampling
    image = torch.rand(1, 3, own.height, own.width) * 2 - 1
    options = {
        "num_frames": own.num_frames, "height": own.height, "width": own.width, "steps": 25, "text_scale": 2.0,
        "image_scale": 1.5, "order": "text_first", "seed": 0,
    }  # fmt: skip
    calls = {
        "comfyui": lambda: host(["the red circle moves left"], image, **options),
        "core": lambda: core(["the red circle moves left"], image, **options),
    }
    for call in calls.values():
        call()
    times = alternate(calls, machine.repeats, machine.device)
    yield Measure("seconds in ComfyUI", times["comfyui"], "s")
    yield Measure("times as long as the core", times["comfyui"] / times["core"], bar=1.05, at_most=True)
    if machine.on_gpu:
        host.load(cuda_graphs=True)
        core.cuda_graphs = True
        graphed, _ = _race(calls, machine)
        yield Measure("seconds in ComfyUI with cuda_graphs", graphed["comfyui"], "s")
        yield Measure("times as fast as without", times["comfyui"] / graphed["comfyui"])
        yield Measure("times as long as the core with CUDA graphs", graphed["comfyui"] / graphed["core"])


@cache
def _comfyui() -> InProcessComfyUI:
    """The one of this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return comfyui_in_process(Path(folder.name))


def bf16_on_cpu(machine: Machine, preset: str) -> Iterator[Measure]:
    """A pass of the full-size model with its branch in ComfyUI: weight_dtype `default`, bfloat16 here, against fp32."""
    host = _comfyui()
    path = host.base.models / "dreamvideo" / f"{preset}.safetensors"
    random_checkpoint(preset, path)
    models = {name: host.call("LoadDreamVideo", checkpoint=path.name, weight_dtype=name)[0] for name in ("default", "fp32")}
    for height, width, frames, repeats in BF16_SHAPES:
        calls = {name: _pass_in_comfyui(host, model, height, width, frames) for name, model in models.items()}
        times, made = _race(calls, replace(machine, repeats=repeats))
        size = f"{height} x {width} x {frames}"
        yield Measure(f"relative error against fp32, {size}", _relative_error(made["default"], made["fp32"]), "", 0.05, True)
        for name in models:
            yield Measure(f"seconds, {name}, {size}", times[name], "s")
        bar = 1.6 if (height, width, frames) == BF16_SHAPES[0][:3] else None
        yield Measure(f"times as fast as fp32, {size}", times["fp32"] / times["default"], bar=bar)


def _pass_in_comfyui(host: InProcessComfyUI, model: Any, height: int, width: int, frames: int) -> Callable[[], Tensor]:
    """One step without guidance: one evaluation f(t, i)."""
    generator = torch.Generator().manual_seed(0)
    channels = model.model.config.unet.cross_attention_dim
    text = [[torch.randn(1, 77, channels, generator=generator), {}]]
    positive, negative, latent = host.call(
        "RetentionEncode",
        positive=text, negative=text, image=torch.rand(1, height, width, 3, generator=generator), width=width, height=height,
        frames=frames, batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    inputs = {
        "model": model, "positive": positive, "negative": negative, "latent": latent, "seed": 0, "steps": 1, "text_scale": 1.0,
        "image_scale": 1.0, "order": "text_first", "sampler": "ddim", "scheduler": "simple", "denoise": 1.0, "rescale": 0.0,
    }  # fmt: skip
    return lambda: host.call("DualCFGSampler", **inputs)[0]["samples"]


def _race(calls: dict[str, Callable[[], Tensor]], machine: Machine) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The median seconds of every call, and what it returned last: what is compared is what was timed."""
    made: dict[str, Tensor] = {}
    kept = {name: lambda name=name, call=call: made.update({name: call()}) for name, call in calls.items()}
    # On a GPU kernels are chosen, graphs recorded, clocks rise; on a CPU malloc gets the pages that it then hands out again.
    alternate(kept, 3 if machine.on_gpu else 1, machine.device)
    return alternate(kept, machine.repeats, machine.device), made


def _tolerance(machine: Machine) -> float:
    return 1e-5 if machine.dtype == torch.float32 else 0.05


def _relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.float() - expected.float()).norm() / expected.float().norm())


def _peak(call: Callable[[], Tensor], device: torch.device) -> int:
    gauge = Gauge(device)
    gauge.reset()
    before = gauge.now()
    call()
    return gauge.peak() - before
