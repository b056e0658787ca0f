"""The networks of FVD and the inception score: a user's TorchScript file, or the small world's classifier.

A network takes clips (B, 3, T, H, W), RGB, float32 in [-1, 1], with the frames and size that are measured. It gives (B, D):
features for FVD, or logits for the inception score. Its own resizing and normalisation (224 x 224, 0 to 255, a mean) belong
inside; docs/evaluate.md shows how to wrap I3D and C3D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..common.checks import InputError, check_finite
from .classifier import load_classifier

USES = ("features", "logits")
_LAST_LINES = 5  # of a TorchScript error: they name the cause


@dataclass(frozen=True)
class VideoNetwork:
    """An opened network; `outputs` is D."""

    name: str
    outputs: int
    run: Callable[[Tensor], Tensor]
    device: torch.device

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        """The output (D,) for a clip (T, 3, H, W) in [-1, 1], float64 on the CPU. Raises `InputError` if it is not finite."""
        output = self.run(frames.transpose(0, 1)[None].float().to(self.device))[0].cpu().double()
        check_finite(f"the output of {self.name}", output, "its weights are damaged")
        return output


def open_network(path: Path, option: str, use: str, shape: tuple[int, int, int], device: torch.device) -> VideoNetwork:
    """Open a network and try it on a clip of zeros of `shape` (T, H, W).

    `use` is one of `USES`. A TorchScript file has one kind of output; a .safetensors file is the small world's classifier
    and has both. `option` is the option that names the file. Raises `InputError` for a file that is no network, or one
    with other inputs or outputs.
    """
    if not path.is_file():
        raise InputError(f"{option} is {str(path)!r}, and there is no such file; {_ADVICE}")
    if path.suffix == ".safetensors":
        model = load_classifier(path, option).to(device)
        run = model.features if use == "features" else model
    else:
        run = _open_torchscript(path, option, device)
    return VideoNetwork(path.name, _count_outputs(run, path, option, shape, device), run, device)


_ADVICE = "give a TorchScript file (docs/evaluate.md says what goes in and comes out) or the .safetensors of `train-classifier`"


def _open_torchscript(path: Path, option: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:  # the file is no archive, or an archive of another kind
        raise InputError(f"{option} is {str(path)!r}, which is no TorchScript file; {_ADVICE}") from error


@torch.no_grad()
def _count_outputs(
    run: Callable[[Tensor], Tensor], path: Path, option: str, shape: tuple[int, int, int], device: torch.device
) -> int:
    """Run the network once, check its output and return D."""
    clip = f"(1, 3, {', '.join(map(str, shape))})"
    try:
        output = run(torch.zeros(1, 3, *shape, device=device))
    except RuntimeError as error:
        cause = " ".join(str(error).strip().splitlines()[-_LAST_LINES:])
        raise InputError(f"{option} is {str(path)!r}, which does not take a clip of shape {clip}: {cause}") from error
    is_tensor = isinstance(output, Tensor)
    if is_tensor and output.ndim == 2 and len(output) == 1 and output.shape[1] > 1 and output.is_floating_point():
        return output.shape[1]
    what = f"shape {tuple(output.shape)} and type {output.dtype}" if is_tensor else type(output).__name__
    raise InputError(f"{option} is {str(path)!r}, which makes {what} of a clip of shape {clip}; allowed: floats (1, D), D > 1")
