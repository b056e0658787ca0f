"""A user's own videos as a source: some windows of frames of every video, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...media.decoding import UnusableClip, VideoInfo, read_info, read_window
from ...media.images import fit_image
from ..recipe import Phase
from .listing import ClipFile, list_digest
from .source import ClipSource, PixelClips, even_weights


@dataclass(frozen=True)
class Window:
    """The frames (T, 3, H, W) in [-1, 1] of a video from frame `start` on."""

    info: VideoInfo
    start: int
    frames: Tensor


class VideoSource(ClipSource):
    """Clip i is window `i % windows` of `files[i // windows]`.

    Its start and its random crop depend only on the seed, the file's index and the window's.
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
        """The number of a video's frames from a window's first to its last."""
        return (self.phase.num_frames - 1) * self.phase.stride + 1

    def read(self, numbers: Sequence[int]) -> PixelClips:
        windows, skipped = {}, {}
        for number in (n for n in numbers if n < len(self)):
            try:
                windows[number] = self.window(number).frames
            except UnusableClip as reason:
                skipped[number] = str(reason)
        empty = torch.empty(0, self.phase.num_frames, 3, *self.size)
        return PixelClips(torch.stack(list(windows.values())) if windows else empty, list(windows), skipped)

    def window(self, number: int) -> Window:
        """Clip `number`; raises `UnusableClip`, or OSError if the file is gone."""
        rng = np.random.default_rng([self.seed, self.file_of(number), number % self.phase.windows])
        with self.files[self.file_of(number)].open() as file:
            info = read_info(file)
            if info.frames < self.span:
                raise UnusableClip(f"too short: {info.frames} frames, and a window spans {self.span}", info)
            start = self._start(number % self.phase.windows, info.frames - self.span + 1, rng)
            frames = read_window(file, start, self.phase.num_frames, self.phase.stride)
        position = tuple(rng.random(2)) if self.phase.crop == "random" else (0.5, 0.5)
        return Window(info, start, fit_image(frames, *self.size, "crop", position))

    def _start(self, window: int, starts: int, rng: np.random.Generator) -> int:
        """A start from 0 to `starts` - 1. Each window draws from its own section of them; few starts are shared."""
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
