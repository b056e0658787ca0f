"""What a run leaves to look at: a line a step in log.jsonl, the same curves for TensorBoard, and sample sheets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter


class RunLog:
    """Written to by one process; a resumed run's curves replace those of the steps that it takes again."""

    def __init__(self, folder: Path, step: int):
        self.folder = folder
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step, **figures}) + "\n")
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)

    def sheet(self, step: int, sheet: Image.Image) -> None:
        (self.folder / "samples").mkdir(exist_ok=True)
        sheet.save(self.folder / "samples" / f"step-{step:07d}.png")
        self.board.add_image("samples", np.array(sheet), step, dataformats="HWC")

    def close(self) -> None:
        self.board.close()
