"""A user's own videos as a source: of every video one window of frames, the same at every reading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...decoding import Facts, UnusableClip, read_facts, read_window
from ...images import fit_image
from ..recipe import Phase
from .listing import ClipFile, fingerprint
from .source import Clips, Source


class VideoSource(Source):
    """Clip `i` is a window of `files[i]`; where it starts, and what a random crop keeps, depends on (seed, i) alone."""

    def __init__(self, files: Sequence[ClipFile], phase: Phase, size: tuple[int, int], seed: int):
        self.files, self.phase, self.size, self.seed = files, phase, size, seed
        self.cache_name = (
            f"latents-{size[1]}x{size[0]}x{phase.num_frames}-stride{phase.stride}-{phase.crop}-seed{seed}-{fingerprint(files)}"
        )

    def __len__(self) -> int:
        return len(self.files)

    @property
    def span(self) -> int:
        """Frames from the first to the last one of a window."""
        return (self.phase.num_frames - 1) * self.phase.stride + 1

    def read(self, numbers: Sequence[int]) -> Clips:
        windows, skipped = {}, {}
        for number in (n for n in numbers if n < len(self)):
            try:
                windows[number] = self.window(number)[1]
            except UnusableClip as reason:
                skipped[number] = str(reason)
        empty = torch.empty(0, self.phase.num_frames, 3, *self.size)
        return Clips(torch.stack(list(windows.values())) if windows else empty, list(windows), skipped)

    def window(self, number: int) -> tuple[Facts, Tensor]:
        """What the file says of itself, and the frames (T, 3, H, W) that are trained on; UnusableClip, or OSError."""
        rng = np.random.default_rng([self.seed, number])
        with self.files[number].open() as file:
            facts = read_facts(file)
            if facts.frames < self.span:
                raise UnusableClip(f"too short: {facts.frames} frames, and a window spans {self.span}", facts)
            start = int(rng.integers(facts.frames - self.span + 1))
            frames = read_window(file, start, self.phase.num_frames, self.phase.stride)
        place = tuple(rng.random(2)) if self.phase.crop == "random" else (0.5, 0.5)
        return facts, fit_image(frames, *self.size, "crop", place)

    def text(self, number: int, rng: np.random.Generator) -> str:
        return self.files[number].caption

    def title(self, number: int) -> str:
        return self.files[number].name

    def weights(self, numbers: Sequence[int], latents: Tensor) -> Tensor:
        return torch.ones(len(numbers), 1, 1, 1, 1)

    def samples(self, numbers: Sequence[int]) -> tuple[Tensor, list[str]]:
        return self.read(numbers).frames, [self.files[i].caption for i in numbers]
