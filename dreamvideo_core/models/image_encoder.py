"""The picture's way into cross-attention: a CLIP vision encoder through transformers, and what it is shown.

transformers is imported where it is needed, as for the text encoder.
"""

from __future__ import annotations

import torch
from kornia.geometry.transform import resize
from torch import Tensor, nn

from .config import VisionConfig

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, of pixels from 0 to 1
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def prepare(images: Tensor, size: int = 224) -> Tensor:
    """What the encoder is shown of pictures (B, 3, H, W) in [-1, 1]: (B, 3, size, size) with CLIP's mean and deviation.

    DynamiCrafter's way: the whole picture, stretched to a square by bicubic resizing with aligned corners, blurred before
    where it shrinks.
    """
    square = resize(images.float(), (size, size), interpolation="bicubic", align_corners=True, antialias=True)
    mean, deviation = (square.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
    return ((square + 1) / 2 - mean) / deviation


def grey_image(size: int = 224, *, device: torch.device | str | None = None) -> Tensor:
    """The empty picture of these models, (1, 3, size, size): 0 in [-1, 1], to be given to `prepare`."""
    return torch.zeros(1, 3, size, size, device=device)


class ImageEncoder(nn.Module):
    """Pictures to CLIP's last hidden states, before the final norm: (B, 1 + patches, D), 257 of them in ViT-H."""

    def __init__(self, config: VisionConfig):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        super().__init__()
        self.config = config
        # The final norm and the projection are not used here: they are what other users of a saved file need.
        self.model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vars(config)))

    def forward(self, prepared: Tensor) -> Tensor:
        """Of what `prepare` gives."""
        return self.model(pixel_values=prepared).last_hidden_state

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Of pictures (B, 3, H, W) in [-1, 1]."""
        weight = self.model.visual_projection.weight
        return self(prepare(images.to(weight.device), self.config.image_size).to(weight.dtype))

    def file_state(self) -> dict[str, Tensor]:
        """Weights under the names that a checkpoint has for them, which are transformers'."""
        return {name: weight for name, weight in self.model.state_dict().items() if "position_ids" not in name}

    def load_file_state(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(state)
