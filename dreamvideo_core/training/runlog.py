"""The log of a run: figures in log.jsonl and as curves for TensorBoard, and contact sheets of samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from .objectives import Samples


class RunLog:
    """Written by one process. A resumed run's curves replace those of the steps that it repeats."""

    def __init__(self, folder: Path, step: int):
        self.folder = folder
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8", newline="\n") as log:
            log.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def samples(self, step: int, samples: Samples) -> None:
        """Write the sheet as a picture, and its figures as a line of their own."""
        (self.folder / "samples").mkdir(exist_ok=True)
        samples.sheet.save(self.folder / "samples" / f"step-{step:07d}.png")
        self.board.add_image("samples", np.array(samples.sheet), step, dataformats="HWC")
        if samples.figures:
            self.figures(step, samples.figures)

    def close(self) -> None:
        self.board.close()
