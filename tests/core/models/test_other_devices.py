"""Devices that cannot be run here: a GPU that is not CUDA and refuses float64, as Apple's."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from metric_networks import write_clip_folder
from other_device import DEVICE, NoFloat64
from tiny import TINY, config, inputs, random_model, random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.classifier import SHIPPED_CLASSIFIER
from dreamvideo_core.evaluation.clip_embedder import ClipEmbedder
from dreamvideo_core.evaluation.distribution import frechet_distance
from dreamvideo_core.evaluation.networks import open_network
from dreamvideo_core.evaluation.similarity import embedding_similarity, frame_ssim
from dreamvideo_core.media.colour import match_colours
from dreamvideo_core.models import layers
from dreamvideo_core.models.config import ScheduleConfig
from dreamvideo_core.sampling.guidance import Guidance
from dreamvideo_core.sampling.guided_step import GuidedModel
from dreamvideo_core.training.recipe import Phase, Recipe
from dreamvideo_core.training.run import run_recipe
from dreamvideo_core.training.trainer import Trainer


def test_the_device_refuses_float64_and_knows_where_tensors_are():
    with NoFloat64():
        x = torch.ones(2, device=DEVICE)
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, dtype=torch.float64).to(DEVICE)
        with pytest.raises(RuntimeError, match="device"):
            x + torch.ones(2)
        assert x.cpu().tolist() == [0, 0]
        assert torch.ones(2).double().sum() == 2


def test_clips_are_sampled():
    with NoFloat64():
        pipeline = random_pipeline().to(DEVICE)
        clip = pipeline(
            "a", torch.zeros(1, 3, 16, 16, dtype=torch.float64), num_frames=2, steps=3, rescale=0.5, retention_every=2
        )
    assert (clip.device, clip.dtype, clip.shape) == (DEVICE, torch.float32, (1, 2, 3, 16, 16))


def test_a_precision_that_the_device_lacks_is_named():
    with NoFloat64(), pytest.raises(InputError, match=r"meta has no float64 here .*; take float32, another precision or"):
        random_pipeline().to(DEVICE, torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("together", [None, False])
def test_guided_steps_of_every_kind(prediction_type, together):
    settings = replace(config(fusion="concat", transformer_in=True), schedule=ScheduleConfig(prediction_type=prediction_type))
    model = random_model(settings).to(DEVICE)
    latents, _, text, image = (tensor.to(DEVICE) for tensor in inputs(batch=2))
    texts, images = {True: text, False: text.clone()}, {True: image, False: image.clone()}
    guidance = Guidance(3.0, 2.0, rescale=0.5, start=0.1, end=0.8)
    guided = GuidedModel(model, texts, images, guidance, retention_every=2, together=together)
    with NoFloat64():
        *_, last = guided.diffusion.ddim(guided, latents, steps=4)
        guided.diffusion.add_noise(latents, latents, torch.zeros(2, dtype=torch.long, device=DEVICE))
    assert (last.shape, last.device) == (latents.shape, DEVICE)


@torch.no_grad()
def test_only_a_cpu_takes_feed_forwards_in_pieces(monkeypatch):
    layer = layers.FeedForward(8, layers.Operations()).to(DEVICE)
    pieces = []
    monkeypatch.setattr(layer.net, "forward", lambda x: pieces.append(len(x.flatten(0, -2))) or x)
    layer(torch.empty(2, 1024, 8, device=DEVICE))
    layer.to_empty(device="cpu")(torch.zeros(2, 1024, 8))
    assert pieces == [2048, 512, 512, 512, 512]


def test_a_device_that_is_no_cpu_has_its_evaluations_in_one_batch():
    with NoFloat64():
        pipeline, calls = random_pipeline().to(DEVICE), []
        encode = pipeline.model.unet.encode
        pipeline.model.unet.encode = lambda latents, *rest: calls.append(len(latents)) or encode(latents, *rest)
        pipeline("a", num_frames=2, height=16, width=16, steps=1)
    assert calls == [4]


@pytest.fixture
def accelerate_there() -> Iterator[None]:
    """What accelerate takes for this machine's device is the other one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState().device = DEVICE
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("objective", ["autoencoder", "diffusion"])
def test_a_model_is_trained(tmp_path, monkeypatch, accelerate_there, objective):
    devices = set()
    monkeypatch.setattr(Trainer, "use_average", lambda run: devices.update(p.device for p in run.parameters.values()))
    monkeypatch.setattr("dreamvideo_core.training.run._config", lambda recipe, start: TINY)
    settings = {"batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1, "num_frames": 2, "sizes": ((32, 32),)}
    settings |= {"sample_steps": 1, "sample_every": 1000, "log_every": 1, "clips": 4, "steps": 2, "ema_decay": 0.9}
    trainable = () if objective == "autoencoder" else ("unet", "text_encoder", "retention")
    weighted = {} if objective == "autoencoder" else {"sprite_weight": 4.0, "drop_text": 0.1, "drop_image": 0.1}
    phase = Phase("one", objective, trainable=trainable, **settings, **weighted)
    with NoFloat64():
        made = run_recipe(Recipe("mac", "sprites", (phase,), mixed_precision="auto"), tmp_path)
    assert made.is_file() and devices == {DEVICE}


def test_what_is_made_there_is_measured(tmp_path, monkeypatch):
    # kornia's SSIM turns autocast off, which does not know this device.
    monkeypatch.setattr("torch.autocast", lambda **options: nullcontext())
    with NoFloat64():
        frames = torch.zeros(4, 3, 32, 32, device=DEVICE)
        embedder = ClipEmbedder.load(write_clip_folder(tmp_path / "clip"), "--clip-folder", DEVICE)
        network = open_network(SHIPPED_CLASSIFIER, "--fvd-network", "features", (4, 32, 32), DEVICE)
        made = torch.stack([network(frames), network(frames)])
        assert (made.device.type, made.dtype) == ("cpu", torch.float64)
        assert frechet_distance(made, made) == pytest.approx(0, abs=1e-6)
        assert embedder.embed_frames(frames).device.type == embedder.embed_text("a").device.type == "cpu"
        assert frame_ssim(frames, frames).shape == (4,)
        assert embedding_similarity(frames.flatten(1), frames.flatten(1)).shape == (4,)
        assert match_colours(frames, frames[:1]).device == DEVICE


def test_the_command_line_asks_torch_for_the_cpu_where_apples_gpus_lack_something():
    """torch reads the variable when it is imported, so it is set before."""
    program = "import os, sys, dreamvideo_core.cli; print(os.environ['PYTORCH_ENABLE_MPS_FALLBACK'], 'torch' in sys.modules)"
    without = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    told = subprocess.run([sys.executable, "-c", program], env=without, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "False"]
