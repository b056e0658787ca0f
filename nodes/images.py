"""ComfyUI's IMAGE, (B, H, W, C) in [0, 1], and the core's (B, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from torch import Tensor


def from_comfy(image: Tensor, name: str = "image") -> Tensor:
    """To the core's: grey becomes RGB, transparency is laid on white; raises ValueError for what is no picture."""
    if image.ndim != 4 or not image.numel() or image.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{name} has shape {tuple(image.shape)}; allowed: (batch, height, width, channels) with at least one pixel "
            "and 1, 3 or 4 channels. Connect the output of Load Image or another IMAGE."
        )
    if not image.isfinite().all():
        raise ValueError(
            f"{name} holds {int((~image.isfinite()).sum())} values that are no numbers (NaN or infinite); allowed: 0 to 1. "
            "The node that made the picture has failed: look at its output, or try it in fp32."
        )
    image = image.float().clamp(0, 1).movedim(-1, 1)
    if image.shape[1] == 4:
        colour, alpha = image[:, :3], image[:, 3:]
        image = colour * alpha + (1 - alpha)
    return image.expand(-1, 3, -1, -1) * 2 - 1


def to_comfy(image: Tensor) -> Tensor:
    """To ComfyUI's."""
    return (image.movedim(1, -1) + 1) / 2
