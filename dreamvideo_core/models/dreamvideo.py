"""DreamVideo: the primary U-Net and the image retention branch together (paper, Section 4).

One evaluation is three steps. `encode` runs the primary encoder on latents and text, `retain` the branch on latents, text
and picture, and `decode` the primary decoder on what both give.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from .config import ModelConfig
from .image_conditions import NO_IMAGE, ImageConditions, Resampler
from .layers import Operations, TemporalConvLayer
from .retention import ImageRetention
from .unet import Encoding, Residuals, UNet, is_temporal


class DreamVideo(nn.Module):
    """The primary U-Net and what brings the picture into it: the retention branch, or the resampler of `ImageConditions`."""

    def __init__(self, config: ModelConfig, operations: Operations | None = None):
        super().__init__()
        operations = operations or Operations()
        self.config = config
        self.unet = UNet(config.unet, operations)
        self.retention = ImageRetention(config.unet, config.retention, operations) if config.retention else None
        self.resampler = Resampler(config.resampler, operations) if config.resampler else None

    @torch.no_grad()
    def initialise(self) -> DreamVideo:
        """The state training starts from: temporal convolutions change nothing, the branch copies the encoder."""
        for module in self.modules():
            if isinstance(module, TemporalConvLayer):
                module.zero()
        if self.retention is not None:
            self.retention.start_from(self.unet)
        return self

    def temporal_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The primary U-Net's temporal layers, by name."""
        return [(n, p) for n, p in self.unet.named_parameters() if is_temporal(n)]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, and so of what is computed; inputs may be in any other."""
        return self.unet.conv_in.weight.dtype

    def image_map(self, image: Tensor) -> Tensor:
        """conv_s(I): image (B, 3, H, W) in [-1, 1] to (B, C, H/8, W/8). It does not depend on the step."""
        if self.retention is None:
            raise ValueError("this model has no retention branch; a U-Net that sees the picture takes `ImageConditions`")
        return self.retention.conv_s(image.to(self.dtype))

    def encode(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, num_frames: int, image: ImageConditions = NO_IMAGE
    ) -> Encoding:
        """`latents` (B T) C H W, `timesteps` (B,), `text` (B, N, D)."""
        return self.unet.encode(latents.to(self.dtype), timesteps, text.to(self.dtype), num_frames, image.to(self.dtype))

    def image_tokens(self, hidden: Tensor) -> Tensor:
        """CLIP vision's last hidden state (B, N, E) to image tokens (B T) L D. They do not depend on the step."""
        return self.resampler(hidden.to(self.dtype))

    def retain(self, latents: Tensor, image_map: Tensor, timesteps: Tensor, text: Tensor, num_frames: int) -> Residuals:
        return self.retention(latents.to(self.dtype), image_map, timesteps, text.to(self.dtype), num_frames)

    def decode(self, encoding: Encoding, residuals: Residuals | None = None) -> Tensor:
        return self.unet.decode(encoding, residuals)

    def forward(self, latents: Tensor, timesteps: Tensor, text: Tensor, image: Tensor | None = None) -> Tensor:
        """One evaluation: latents (B, T, C, H, W), timesteps (B,), text (B, N, D), image (B, 3, 8H, 8W) or None."""
        num_frames = latents.shape[1]
        frames = rearrange(latents, "b t c h w -> (b t) c h w")
        encoding = self.encode(frames, timesteps, text, num_frames)
        residuals = None
        if image is not None:
            residuals = self.retain(frames, self.image_map(image), timesteps, text, num_frames)
        return rearrange(self.decode(encoding, residuals), "(b t) c h w -> b t c h w", t=num_frames)
