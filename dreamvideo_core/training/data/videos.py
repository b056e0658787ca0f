"""A user's own videos as a source: of every video some windows of frames, the same at every reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...media.decoding import Facts, UnusableClip, read_facts, read_window
from ...media.images import fit_image
from ..recipe import Phase
from .listing import ClipFile, list_digest
from .source import Clips, Source, even_weights


@dataclass(frozen=True)
class Window:
    """What a file says of itself, the frame that a window begins with, and its frames (T, 3, H, W) in [-1, 1]."""

    facts: Facts
    start: int
    frames: Tensor


class VideoSource(Source):
    """Clip `i` is window `i % windows` of `files[i // windows]`.

    Where it starts, and what a random crop keeps, depends on the seed, the file's place in the list and the window alone.
    """

    def __init__(self, files: Sequence[ClipFile], phase: Phase, size: tuple[int, int], seed: int):
        self.files, self.phase, self.size, self.seed = files, phase, size, seed
        self.cache_name = (
            f"{size[1]}x{size[0]}x{phase.num_frames}-stride{phase.stride}-windows{phase.windows}-{phase.crop}-seed{seed}-"
            f"{list_digest(files)}"
        )

    def __len__(self) -> int:
        return len(self.files) * self.phase.windows

    @property
    def span(self) -> int:
        """Frames from the first to the last one of a window."""
        return (self.phase.num_frames - 1) * self.phase.stride + 1

    def read(self, numbers: Sequence[int]) -> Clips:
        windows, skipped = {}, {}
        for number in (n for n in numbers if n < len(self)):
            try:
                windows[number] = self.window(number).frames
            except UnusableClip as reason:
                skipped[number] = str(reason)
        empty = torch.empty(0, self.phase.num_frames, 3, *self.size)
        return Clips(torch.stack(list(windows.values())) if windows else empty, list(windows), skipped)

    def window(self, number: int) -> Window:
        """What is trained on; UnusableClip, or OSError when the file is gone."""
        rng = np.random.default_rng([self.seed, self.file_of(number), number % self.phase.windows])
        with self.files[self.file_of(number)].open() as file:
            facts = read_facts(file)
            if facts.frames < self.span:
                raise UnusableClip(f"too short: {facts.frames} frames, and a window spans {self.span}", facts)
            start = self._start(number % self.phase.windows, facts.frames - self.span + 1, rng)
            frames = read_window(file, start, self.phase.num_frames, self.phase.stride)
        place = tuple(rng.random(2)) if self.phase.crop == "random" else (0.5, 0.5)
        return Window(facts, start, fit_image(frames, *self.size, "crop", place))

    def _start(self, window: int, starts: int, rng: np.random.Generator) -> int:
        """One of the possible `starts`: every window draws from a part of its own, or shares one where starts are few."""
        low, high = (n * starts // self.phase.windows for n in (window, window + 1))
        return int(rng.integers(low, max(high, low + 1)))

    def file_of(self, number: int) -> int:
        return number // self.phase.windows

    def text(self, number: int, rng: np.random.Generator) -> str:
        return self.files[self.file_of(number)].caption

    def captions(self) -> list[str]:
        return [file.caption for file in self.files]

    def title(self, number: int) -> str:
        return self.files[self.file_of(number)].name

    def weights(self, numbers: Sequence[int], latents: Tensor) -> Tensor:
        return even_weights(len(numbers))

    def samples(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self.read(numbers).frames, [self.files[self.file_of(n)].caption for n in numbers]
