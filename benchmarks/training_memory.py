"""The memory of one training step on a GPU, computed: a step on fake tensors, which have shapes only, is followed.

Counted are weights, gradients, the optimiser's moments, averaged weights, and as activations whatever else lives at the peak
of a forward and a backward pass under bfloat16 autocast: what autograd keeps, casts of weights and passing tensors. Not
counted: text encoder and autoencoder, the CUDA context (about 0.5 GB), convolution workspaces and what the allocator cannot
reuse. Made with

    python3 scripts/comfyui.py exec python benchmarks/training_memory.py single_gpu_24gb paper
"""

from __future__ import annotations

import argparse
import weakref
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamvideo_core.models.config import PRESETS
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.training.gradient_checkpointing import checkpoint_gradients
from dreamvideo_core.training.recipe import Phase
from dreamvideo_core.training.recipe_files import load_recipe

GB = 1e9
TEXT_TOKENS = 77
FLOAT = 4


class Living(TorchDispatchMode):
    """While it is entered, the bytes of all tensors that are made and not yet freed, and the most there ever were."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage)
                self._count(storage.nbytes())
                weakref.finalize(storage, self._count, -storage.nbytes())
        return made

    def _count(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


def train_only(model: DreamVideo, phase: Phase) -> list[torch.nn.Parameter]:
    """The parameters that the paper's phase trains; all others are frozen."""
    model.requires_grad_(False)
    parts = {"temporal": [p for _, p in model.temporal_parameters()], "retention": list(model.retention.parameters())}
    parameters = [p for name in phase.trainable for p in parts[name]]
    for parameter in parameters:
        parameter.requires_grad_(True)
        parameter.grad = torch.zeros_like(parameter)  # of the batch before in the same step
    return parameters


def forward_and_backward(model: DreamVideo, phase: Phase) -> None:
    (height, width), config = phase.sizes[0], model.config.unet
    latents = torch.randn(phase.batch_size, phase.num_frames, config.in_channels, height // 8, width // 8)
    text = torch.randn(phase.batch_size, TEXT_TOKENS, config.cross_attention_dim)
    images = torch.randn(phase.batch_size, 3, height, width)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = model(latents, torch.zeros(phase.batch_size), text, images)
    F.mse_loss(predicted.float(), latents).backward()


def moments(optimizer: str, shape: torch.Size) -> int:
    """Numbers that the optimiser keeps for a weight (tests/core/training/test_options.py)."""
    if optimizer == "adamw":
        return 2 * shape.numel()
    return shape[0] + shape[1:].numel() if len(shape) > 1 else shape.numel()


def compute(preset: str, phase: Phase) -> dict[str, int]:
    """Bytes of each kind."""
    with FakeTensorMode(), Living() as living:
        model = DreamVideo(PRESETS[preset])
        parameters = train_only(model, phase)
        if phase.gradient_checkpointing:
            checkpoint_gradients(model)
        before = living.peak = living.now
        forward_and_backward(model, phase)
        activations = living.peak - before
    trained = sum(p.numel() for p in parameters)
    return {
        "weights": FLOAT * sum(p.numel() for p in model.parameters()),
        "gradients": FLOAT * trained,
        "moments": FLOAT * sum(moments(phase.optimizer, p.shape) for p in parameters),
        "average": FLOAT * trained if phase.ema_decay else 0,
        "activations": activations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="+", help="names or paths; of each the last phase is computed")
    print("| recipe | clips a batch | checkpointed | weights | gradients | moments | average | activations | sum, GB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in parser.parse_args().recipes:
        recipe = load_recipe(name)
        for checkpointed in (True, False):
            phase = replace(recipe.phases[-1], gradient_checkpointing=checkpointed)
            sizes = compute(recipe.preset, phase).values()
            cells = " | ".join(f"{size / GB:.1f}" for size in (*sizes, sum(sizes)))
            print(f"| {name} | {phase.batch_size} | {'yes' if checkpointed else 'no'} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
