"""Converting between ComfyUI's IMAGE, (B, H, W, C) in [0, 1], and the core's images, (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from torch import Tensor

from ..dreamvideo_core.common.checks import InputError, check_finite


def from_comfy(image: Tensor, name: str = "image") -> Tensor:
    """An IMAGE for the core: grey becomes RGB, transparency is laid on white. Raises `InputError` for another shape."""
    if image.ndim != 4 or not image.numel() or image.shape[-1] not in (1, 3, 4):
        raise InputError(
            f"{name} has shape {tuple(image.shape)}; allowed: (batch, height, width, channels) with at least one pixel "
            "and 1, 3 or 4 channels. Connect the output of Load Image or another IMAGE."
        )
    check_finite(name, image, "the node that made the picture has failed: look at its output, or try it in fp32.")
    image = image.float().clamp(0, 1).movedim(-1, 1)
    if image.shape[1] == 4:
        colour, alpha = image[:, :3], image[:, 3:]
        image = colour * alpha + (1 - alpha)
    return image.expand(-1, 3, -1, -1) * 2 - 1


def to_comfy(image: Tensor) -> Tensor:
    """The core's image as an IMAGE."""
    return (image.movedim(1, -1) + 1) / 2
