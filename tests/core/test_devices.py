"""Devices that are not here, simulated: nothing there is float64, which MPS lacks, and nothing there is taken for a CPU."""

from dataclasses import replace

import pytest
import torch
from tiny import config, inputs, random_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamvideo_core import layers
from dreamvideo_core.guidance import Guidance
from dreamvideo_core.guided import GuidedModel


class WithoutFloat64(TorchDispatchMode):
    """Torch's "meta" device as one that has no float64; what it is asked to do is counted."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, made)):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                self.operations += 1
                if tensor.dtype == torch.float64:
                    raise TypeError(f"{function} is asked for float64")
        return made


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("together", [None, False])
def test_a_whole_sampling_loop_without_float64(prediction_type, together):
    settings = replace(config(fusion="concat", transformer_in=True), prediction_type=prediction_type)
    model = random_model(settings).to("meta")
    latents, _, text, image = (tensor.to("meta") for tensor in inputs(batch=2))
    texts, images = {True: text, False: text.clone()}, {True: image, False: image.clone()}
    guidance = Guidance(3.0, 2.0, rescale=0.5, start=0.1, end=0.8)
    guided = GuidedModel(model, texts, images, guidance, retention_every=2, together=together)
    with WithoutFloat64() as device:
        *_, last = guided.diffusion.ddim(guided, latents, steps=4)
        timesteps = torch.zeros(2, dtype=torch.long, device="meta")
        guided.diffusion.add_noise(latents, latents, timesteps)
    assert last.shape == latents.shape and last.is_meta and device.operations > 1000


@torch.no_grad()
def test_only_a_cpu_takes_feed_forwards_in_pieces(monkeypatch):
    layer = layers.FeedForward(8, layers.LayerFactory()).to("meta")
    pieces = []
    monkeypatch.setattr(layer.net, "forward", lambda x: pieces.append(len(x.flatten(0, -2))) or x)
    layer(torch.empty(2, 1024, 8, device="meta"))
    layer.to_empty(device="cpu")(torch.zeros(2, 1024, 8))
    assert pieces == [2048, 512, 512, 512, 512]


@torch.no_grad()
def test_only_a_cpu_takes_few_evaluations_one_by_one():
    model = random_model().to("meta")
    latents, _, text, image = (tensor.to("meta") for tensor in inputs())
    guided = GuidedModel(model, {True: text, False: text}, {True: image, False: image}, Guidance(3.0, 2.0))
    guided(latents, 900)
    assert guided.together
