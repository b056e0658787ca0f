"""How the small world's classifier is trained: on clips that are rendered as they are needed and never shown twice."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sprites import render_batch, sample_clip
from ..sprites.scene import MARGIN, seeded
from .classifier import SIDE, SpriteClassifier, accuracy, label

FRAMES = 8
_NOISE = 0.1  # of the pixels, at most: generated clips are not as clean as rendered ones
_PEAK = 4e-3
_SMOOTHING = 0.05


def clips_of(split: str, seed: int, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Clips `start` and following of a split, (N, 8, 3, 64, 64), and their labels (N,)."""
    clips = [sample_clip(seeded(split, seed, index), MARGIN) for index in range(start, start + count)]
    return render_batch(clips, num_frames=FRAMES, height=SIDE, width=SIDE), torch.tensor([label(c) for c in clips])


def train_classifier(
    steps: int, batch: int, seed: int, on_step: Callable[[int, float], None] = lambda step, loss: None
) -> SpriteClassifier:
    """The same arguments give the same weights on one machine; `on_step` hears the step, from 1, and its loss."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = SpriteClassifier().to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK, total_steps=steps + 1, pct_start=0.15)
    for step in range(1, steps + 1):
        frames, labels = clips_of("train", seed, (step - 1) * batch, batch)
        strength = _NOISE * torch.rand(batch, 1, 1, 1, 1, generator=generator)
        spoilt = frames + strength * torch.randn(frames.shape, generator=generator)
        clips = spoilt.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)
        loss = F.cross_entropy(model(clips), labels, label_smoothing=_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_step(step, loss.item())
    return model.eval()


def measure_classifier(model: SpriteClassifier, seed: int, count: int) -> float:
    """The share of `count` validation clips that are named rightly."""
    frames, labels = clips_of("validation", seed, 0, count)
    return accuracy(model, frames, labels)
