"""The networks that FVD and the inception score look through: a user's TorchScript file, or the small world's classifier.

A network takes clips (B, 3, T, H, W), RGB, float32 in [-1, 1], at the frames and the size that are measured, and gives
(B, D): features for FVD, logits before any softmax for the inception score. What else it needs (224 x 224, 0 to 255, a
mean) it does inside; docs/evaluate.md shows how to wrap I3D and C3D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..common.checks import InputError
from .classifier import load_classifier

USES = ("features", "logits")
_BOTTOM = 5  # lines of a TorchScript error; the cause stands last


@dataclass(frozen=True)
class VideoNetwork:
    """A network that is ready to look at clips; `outputs` is D."""

    name: str
    outputs: int
    run: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """What it says of one clip (T, 3, H, W) in [-1, 1]: (D,), float64 on the CPU. Raises `InputError` for no numbers."""
        found = self.run(frames.transpose(0, 1)[None].float().to(self.device))[0].cpu().double()
        if not found.isfinite().all():
            raise InputError(
                f"{self.name} says values that are no numbers (NaN or infinite) of a clip; its weights are damaged"
            )
        return found


def open_network(path: Path, option: str, use: str, shape: tuple[int, int, int], device: torch.device) -> VideoNetwork:
    """The network in a file, tried on an empty clip of `shape` (T, H, W).

    `use` is one of `USES`; a TorchScript file has only one kind of output, a .safetensors file is the small world's
    classifier and has both. `option` is what the person calls the file. Raises `InputError` for a file that is none, and
    for one that does not keep to the contract.
    """
    if not path.is_file():
        raise InputError(f"{option} is {str(path)!r}, and there is no such file; {_ADVICE}")
    if path.suffix == ".safetensors":
        model = load_classifier(path, option).to(device)
        run = model.features if use == "features" else model
    else:
        run = _open_torchscript(path, option, device)
    return VideoNetwork(path.name, _tried(run, path, option, shape, device), run, device)


_ADVICE = "give a TorchScript file (docs/evaluate.md says what goes in and comes out) or the .safetensors of `train-classifier`"


def _open_torchscript(path: Path, option: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:  # what torch raises for a file that is no archive, or another kind of one
        raise InputError(f"{option} is {str(path)!r}, which is no TorchScript file; {_ADVICE}") from error


@torch.no_grad()
def _tried(run: Callable[[Tensor], Tensor], path: Path, option: str, shape: tuple[int, int, int], device: torch.device) -> int:
    wanted = f"(1, 3, {', '.join(map(str, shape))})"
    try:
        found = run(torch.zeros(1, 3, *shape, device=device))
    except RuntimeError as error:
        cause = " ".join(str(error).strip().splitlines()[-_BOTTOM:])
        raise InputError(f"{option} is {str(path)!r}, which does not take a clip of shape {wanted}: {cause}") from error
    if (
        not isinstance(found, Tensor)
        or found.ndim != 2
        or len(found) != 1
        or found.shape[1] < 2
        or not found.is_floating_point()
    ):
        what = f"shape {tuple(found.shape)} and type {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"{option} is {str(path)!r}, which makes {what} of a clip of shape {wanted}; allowed: floats (1, D), D > 1"
        )
    return found.shape[1]
