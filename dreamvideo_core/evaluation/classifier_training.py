"""Training the small world's classifier, on clips that are rendered on demand and never repeated."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sprites import render_batch, sample_clip
from ..sprites.scene import MARGIN, seeded
from .classifier import SIDE, SpriteClassifier, accuracy, label

FRAMES = 8
_NOISE = 0.1  # the largest standard deviation of noise on pixels: generated clips are not as clean as rendered ones
_PEAK_RATE = 4e-3
_LABEL_SMOOTHING = 0.05


def labelled_clips(split: str, seed: int, start: int, count: int) -> tuple[Tensor, Tensor]:
    """`count` clips of a split from number `start` on, (N, 8, 3, 64, 64), and their labels (N,)."""
    clips = [sample_clip(seeded(split, seed, index), MARGIN) for index in range(start, start + count)]
    return render_batch(clips, num_frames=FRAMES, height=SIDE, width=SIDE), torch.tensor([label(c) for c in clips])


def train_classifier(
    steps: int, batch: int, seed: int, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> SpriteClassifier:
    """Equal arguments give equal weights on one machine; `on_step` is told the step, from 1, and its loss."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SpriteClassifier().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps + 1, pct_start=0.15)
    for step in range(1, steps + 1):
        frames, labels = labelled_clips("train", seed, (step - 1) * batch, batch)
        strength = _NOISE * torch.rand(batch, 1, 1, 1, 1, generator=generator)
        noisy = frames + strength * torch.randn(frames.shape, generator=generator)
        clips = noisy.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
        loss = F.cross_entropy(model(clips), labels, label_smoothing=_LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
        on_step(step, loss.item())
    return model.eval()


def measure_classifier(model: SpriteClassifier, seed: int, count: int) -> float:
    """The accuracy on `count` validation clips."""
    frames, labels = labelled_clips("validation", seed, 0, count)
    return accuracy(model, frames, labels)
