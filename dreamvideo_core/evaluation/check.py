"""A first look at a model: one clip, what can be told of it without a true one, and a sheet of its frames."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..media.grid import clip_grid
from ..media.images import fit_image
from ..sampling.pipeline import Pipeline
from .metrics import first_frame_ssim, motion

_SHOWN, _COLUMNS = 16, 4  # frames on the sheet
_CELL = 320  # pixels of a frame's longer side there


@dataclass(frozen=True)
class Checked:
    """A clip (T, 3, H, W) in [-1, 1] and what it took; likenesses are FFF_SSIM, of a picture that was given."""

    frames: Tensor
    likeness: float | None
    end_likeness: float | None
    motion: float
    seconds: float
    peak: int | None  # bytes; None on systems that do not tell

    @property
    def finite(self) -> bool:
        return bool(self.frames.isfinite().all())

    def __str__(self) -> str:
        said = ["all values finite" if self.finite else "NOT ALL VALUES FINITE"]
        named = (("FFF_SSIM", self.likeness), ("last frame's SSIM", self.end_likeness))
        said += [f"{name} {value:.3f}" for name, value in named if value is not None]
        said += [f"motion {self.motion:.4f}", f"sampled in {self.seconds:.0f} s"]
        said += [] if self.peak is None else [f"peak {self.peak / 1e9:.2f} GB"]
        return ", ".join(said)


def check_model(
    pipeline: Pipeline,
    prompt: str,
    image: Tensor | None,
    end_image: Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **sampling: Any,
) -> Checked:
    """Sample one clip of pictures (1, 3, H, W) or None; `sampling` are options of `Pipeline.__call__`."""
    started = time.monotonic()
    frames = pipeline(prompt, image, end_image=end_image, on_step=on_step, **sampling)[0].float().cpu()
    seconds = time.monotonic() - started
    pairs = ((frames[:1], image), (frames[-1:], end_image))
    likenesses = [None if picture is None else float(first_frame_ssim(frame, picture.cpu())) for frame, picture in pairs]
    return Checked(frames, *likenesses, motion(frames), seconds, _peak(pipeline.device))


def sheet(checked: Checked, line: str, image: Tensor | None = None, end_image: Tensor | None = None) -> Tensor:
    """Pictures and frames in rows below a line of text: (3, H, W) in [-1, 1]. What is no number is shown as black."""
    count = len(checked.frames)
    numbers = sorted({round(number) for number in torch.linspace(0, count - 1, min(count, _SHOWN)).tolist()})
    cells = {"image": image, "end image": end_image}
    cells |= {f"frame {number + 1}": checked.frames[number : number + 1] for number in numbers}
    cells = {name: cell for name, cell in cells.items() if cell is not None}
    height, width = checked.frames.shape[-2:]
    scale = min(1, _CELL / max(height, width))
    size = math.ceil(height * scale), math.ceil(width * scale)
    small = [fit_image(cell.float().cpu().nan_to_num(-1, 1, -1), *size, "stretch") for cell in cells.values()]
    rows = clip_grid(small, list(cells), _COLUMNS)[0]
    below = torch.ones(1, 3, size[0], rows.shape[-1])  # letters are as large as what they stand above is high
    return torch.cat([clip_grid([below], [line], 1)[0, :, : -size[0]], rows], dim=1)


def file_size(path: Path) -> int:
    """The bytes of a model's file, or of the weights in its folder."""
    files = [path] if path.is_file() else path.rglob("*.safetensors")
    return sum(file.stat().st_size for file in files)


def _peak(device: torch.device) -> int | None:
    """The most memory that this process ever had, or on CUDA its tensors."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ModuleNotFoundError:  # on Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
