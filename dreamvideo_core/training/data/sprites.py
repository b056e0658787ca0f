"""The small world as an endless source: scenes are sampled and rendered on demand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ...sprites import Clip, cover_batch, render_batch, sample_chain, sample_clip, sentence
from ...sprites.scene import seeded
from ..recipe import Phase
from .source import ClipSource, PixelClips, even_weights


class SpriteSource(ClipSource):
    """Clips of the train split, each of its own scene or, in chains, several stages of one; samples are of validation."""

    def __init__(self, phase: Phase, size: tuple[int, int], seed: int, device: torch.device | str = "cpu"):
        """`size` is (height, width). `read` renders on `device`: a GPU takes a hundredth of the time."""
        self.phase, self.seed, self.device = phase, seed, torch.device(device)
        self.shape = {"num_frames": phase.num_frames, "height": size[0], "width": size[1]}
        self.count = phase.clips_at(size)
        kind = f"margin{phase.margin:g}" if phase.chain_stages == 1 else f"chains{phase.chain_stages}"
        self.cache_name = f"{size[1]}x{size[0]}x{phase.num_frames}-{kind}-seed{seed}"
        self.clip = cache(self._sample)  # every epoch asks for every clip

    def __len__(self) -> int:
        return self.count

    def _sample(self, number: int) -> Clip:
        if self.phase.chain_stages == 1:
            return sample_clip(seeded("train", self.seed, number), self.phase.margin)
        chain, stage = divmod(number, self.phase.chain_stages)
        return self.chain(chain)[stage]

    def chain(self, number: int) -> list[Clip]:
        """The stages of chain `number`: clips number * chain_stages and following."""
        return sample_chain(seeded("train", self.seed, number), self.phase.chain_stages, **self.shape)

    def read(self, numbers: Sequence[int]) -> PixelClips:
        with self.device:
            return PixelClips(render_batch([self.clip(i) for i in numbers], **self.shape), numbers)

    def file_of(self, number: int) -> int:
        return number

    def text(self, number: int, rng: np.random.Generator) -> str:
        return sentence(self.clip(number), rng)

    def captions(self) -> None:
        """A clip has many wordings."""
        return None

    def title(self, number: int) -> str:
        return f"scene {number}"

    def weights(self, numbers: Sequence[int], latents: Tensor) -> Tensor:
        if self.phase.sprite_weight == 1:
            return even_weights(len(numbers))
        return sprite_weights([self.clip(i) for i in numbers], latents, self.phase.sprite_weight)

    def samples(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        clips = [sample_clip(seeded("validation", self.seed, i)) for i in range(len(numbers))]
        return render_batch(clips, **self.shape), [sentence(clip) for clip in clips]


def sprite_weights(clips: Sequence[Clip], latents: Tensor, weight: float) -> Tensor:
    """(B, 1, 1, h, w) for latents (B, T, 4, h, w): `weight` where a clip's acting sprite is at any time, 1 elsewhere."""
    actors = [clip.scene.sprites[clip.actor] for clip in clips]
    height, width = latents.shape[-2:]
    cover = cover_batch(actors, [c.action for c in clips], num_frames=latents.shape[1], height=height, width=width)
    return 1 + (weight - 1) * rearrange(cover.amax(1), "b h w -> b 1 1 h w")
