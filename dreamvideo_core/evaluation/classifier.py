"""A small classifier of the small world's clips, in the role that I3D and C3D have for real videos.

A label is the acting sprite's action and shape. "still" is one label, since nobody can see which sprite rests. So the
inception score is high if clips show clear shapes with clear actions, all equally often.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..common.checks import InputError
from ..common.files import atomic
from ..sprites import ACTIONS, SHAPES, Clip

SHIPPED_CLASSIFIER = Path(__file__).parents[1] / "assets" / "sprites_classifier.safetensors"
LABELS = ("still", *(f"{action} {shape}" for action, shape in product((a for a in ACTIONS if a != "still"), SHAPES)))
SIDE = 64  # pixels: clips are resized to this height and width
_CHANNELS = (24, 40, 64, 80, 96)
_KERNELS = ((1, 5, 5), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
_STRIDES = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1))


def label(clip: Clip) -> int:
    """The index of a clip's label in `LABELS`."""
    return LABELS.index("still" if clip.action == "still" else f"{clip.action} {clip.scene.sprites[clip.actor].shape}")


class SpriteClassifier(nn.Module):
    """Clips (B, 3, T, H, W) in [-1, 1], of any length and size, to logits (B, 37) over `LABELS`."""

    def __init__(self):
        super().__init__()
        sizes = zip((3, *_CHANNELS), _CHANNELS, _KERNELS, _STRIDES, strict=False)
        self.blocks = nn.Sequential(*(_block(*size) for size in sizes))
        self.head = nn.Linear(_CHANNELS[-1], len(LABELS))

    def features(self, clips: Tensor) -> Tensor:
        """The features before the last layer: (B, 96)."""
        if clips.shape[-2:] != (SIDE, SIDE):
            clips = F.interpolate(clips, (clips.shape[2], SIDE, SIDE), mode="area")
        return self.blocks(clips).mean((2, 3, 4))

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.features(clips))


def _block(inside: int, outside: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
    convolution = nn.Conv3d(inside, outside, kernel, stride, tuple(k // 2 for k in kernel), bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(outside), nn.SiLU())


def save_classifier(model: SpriteClassifier, path: Path) -> None:
    """Write the weights in half precision, less than 1 MB."""
    state = {k: v.half().contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}
    with atomic(path) as temporary:
        save_file(state, temporary, {"format": "pt", "labels": ", ".join(LABELS)})


def load_classifier(path: Path, name: str = "classifier") -> SpriteClassifier:
    """A classifier that `save_classifier` wrote, in float32. Raises `InputError`; `name` is the input that names the file."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{name} is {str(path)!r}, which cannot be read ({error}); make it with `dreamvideo train-classifier`"
        ) from error
    model = SpriteClassifier()
    expected = model.state_dict()
    counters = {k: v for k, v in expected.items() if not v.is_floating_point()}  # BatchNorm's, which are not saved
    if set(state) | set(counters) != set(expected) or any(state[k].shape != expected[k].shape for k in state):
        raise InputError(
            f"{name} is {str(path)!r}, which is no classifier of sprites; make one with `dreamvideo train-classifier`"
        )
    model.load_state_dict({k: v.float() for k, v in state.items()} | counters)
    return model.eval()


@torch.no_grad()
def accuracy(model: SpriteClassifier, frames: Tensor, labels: Tensor) -> float:
    """The share of clips (N, T, 3, H, W) whose label (N,) has the largest logit."""
    predicted = torch.cat([model(batch.transpose(1, 2)).argmax(1) for batch in frames.split(32)])
    return float((predicted == labels).float().mean())
