"""The interface between the trainer and a source of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelClips:
    """Clips as pixels: row r of `frames` (N, T, 3, H, W) in [-1, 1] is clip `numbers[r]` of the source.

    `skipped` has the reason for every requested clip that cannot be used, by its number.
    """

    frames: Tensor
    numbers: Sequence[int]
    skipped: Mapping[int, str] = field(default_factory=dict)


def even_weights(count: int) -> Tensor:
    """`ClipSource.weights` for so many clips whose errors all count alike."""
    return torch.ones(count, 1, 1, 1, 1)


class ClipSource(ABC):
    """Clips of one size, numbered from 0. The same number always gives the same clip.

    Sources with different clips have different `cache_name`s.
    """

    cache_name: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> PixelClips:
        """The pixels of some clips; raises OSError if the source itself is gone.

        Numbers beyond the length are allowed: an endless source makes these clips too, others leave them out.
        """

    @abstractmethod
    def file_of(self, number: int) -> int:
        """The number of the file that clip `number` is taken from: clips of one file show the same scene."""

    @abstractmethod
    def text(self, number: int, rng: np.random.Generator) -> str:
        """A sentence that says what happens in clip `number`."""

    @abstractmethod
    def captions(self) -> list[str] | None:
        """Every sentence that `text` can give; None if they are too many to be cached."""

    @abstractmethod
    def title(self, number: int) -> str:
        """The name of clip `number` in messages."""

    @abstractmethod
    def weights(self, numbers: Sequence[int], latents: Tensor) -> Tensor:
        """Weights of the prediction's squared errors, broadcastable to the clips' latents (B, T, 4, h, w)."""

    @abstractmethod
    def samples(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        """As many reference clips (N, T, 3, H, W) for sample sheets as there are `numbers`, and their sentences."""
