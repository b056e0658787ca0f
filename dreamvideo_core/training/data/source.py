"""What the trainer asks of a source of clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """Clips as pixels: row r of `frames` (N, T, 3, H, W) in [-1, 1] is the clip of number `numbers[r]`.

    `skipped` says of every other clip that was asked for why it cannot be used.
    """

    frames: Tensor
    numbers: Sequence[int]
    skipped: Mapping[int, str] = field(default_factory=dict)


def even_weights(count: int) -> Tensor:
    """`Source.weights` where every error of so many clips counts alike."""
    return torch.ones(count, 1, 1, 1, 1)


class Source(ABC):
    """Clips of one size, numbered from 0; a clip is the same whenever it is asked for.

    `cache_name` differs from that of every source whose clips differ.
    """

    cache_name: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> Clips:
        """The pixels of some clips; OSError when the source itself is gone.

        Numbers from the length on are allowed: a source without end draws them too, another leaves them out.
        """

    @abstractmethod
    def file_of(self, number: int) -> int:
        """What clip `number` is taken from: clips of one file show the same things."""

    @abstractmethod
    def text(self, number: int, rng: np.random.Generator) -> str:
        """A sentence that says what happens in clip `number`."""

    @abstractmethod
    def captions(self) -> list[str] | None:
        """Every sentence that `text` can give; None where there are too many to be kept."""

    @abstractmethod
    def title(self, number: int) -> str:
        """What a person calls clip `number`."""

    @abstractmethod
    def weights(self, numbers: Sequence[int], latents: Tensor) -> Tensor:
        """How much each error of the prediction counts, broadcast to the clips' latents (B, T, 4, h, w)."""

    @abstractmethod
    def samples(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        """As many clips as `numbers` names, (N, T, 3, H, W), to compare what is made with, and their sentences."""
