"""The image retention branch: what keeps the picture's look in every frame (paper, Section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from einops import repeat
from torch import Tensor, nn

from .config import RetentionConfig, UNetConfig
from .layers import Operations, RunAttention, run_attention
from .unet import Encoder, Residuals, UNet, skip_channels

_SILU_GAIN = 1.677  # 1 / sqrt(E[silu(x)^2]), x ~ N(0, 1): keeps E[x^2] through a SiLU


class ImageStem(nn.Module):
    """conv_s: the RGB image (B, 3, H, W) in [-1, 1] to one map (B, C, H/8, W/8)."""

    def __init__(self, widths: tuple[int, ...], out_channels: int, operations: Operations):
        super().__init__()
        layers: list[nn.Module] = [operations.conv2d(3, widths[0])]
        for before, after in pairwise(widths):
            layers += [nn.SiLU(), operations.conv2d(before, before), nn.SiLU(), operations.conv2d(before, after, stride=2)]
        self.layers = nn.Sequential(*layers, nn.SiLU(), operations.conv2d(widths[-1], out_channels))

    @torch.no_grad()
    def initialise(self) -> None:
        """Weights that keep the second moment from SiLU to SiLU; with torch's own, all images get the same map within 1e-4."""
        for conv in self.layers[::2]:
            nn.init.normal_(conv.weight, std=_SILU_GAIN / conv.weight[0].numel() ** 0.5)
            nn.init.zeros_(conv.bias)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class ImageRetention(Encoder):
    """The branch R: a copy of the encoder on z_r = conv_d(z) + conv_s(I), each output through a zero convolution.

    conv_d is the copied `conv_in`. With fusion "concat" a 1 x 1 convolution of both maps replaces the sum.
    """

    OWN = ("conv_s", "fusion", "zero_conv")  # prefixes of the parameters that the encoder does not have

    def __init__(self, unet: UNetConfig, config: RetentionConfig, operations: Operations):
        super().__init__(unet, operations)
        channels = unet.block_out_channels[0]
        self.conv_s = ImageStem(config.image_channels, channels, operations)
        if config.fusion == "concat":
            self.fusion = operations.conv2d(2 * channels, channels, kernel=1)
        self.zero_convs = nn.ModuleList(operations.conv2d(c, c, kernel=1) for c in skip_channels(unet))
        self.zero_conv_mid = operations.conv2d(unet.block_out_channels[-1], unet.block_out_channels[-1], kernel=1)

    def forward(
        self,
        latents: Tensor,
        image_map: Tensor,
        timesteps: Tensor,
        text: Tensor,
        num_frames: int,
        run: RunAttention = run_attention,
    ) -> Residuals:
        hidden = self.conv_in(latents)
        still = repeat(image_map, "b c h w -> (b t) c h w", t=num_frames)
        hidden = self.fusion(torch.cat([hidden, still], dim=1)) if hasattr(self, "fusion") else hidden + still
        encoding = self.contract(hidden, timesteps, text, num_frames, run)
        skips = tuple(conv(skip) for conv, skip in zip(self.zero_convs, encoding.skips, strict=True))
        return Residuals(skips, self.zero_conv_mid(encoding.mid))

    @torch.no_grad()
    def start_from(self, unet: UNet) -> None:
        """The paper's start: every layer that the encoder has too is a copy of it; `initialise` for the others."""
        own = self.state_dict()
        self.load_state_dict({k: v for k, v in unet.state_dict().items() if k in own}, strict=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The start of its own layers: conv_s tells images apart, but the zero convolutions let none have an effect."""
        self.conv_s.initialise()
        if hasattr(self, "fusion"):  # begins as the sum, which the copied layers know
            one = torch.eye(self.fusion.out_channels)[..., None, None]
            self.fusion.weight.copy_(torch.cat([one, one], dim=1))
            nn.init.zeros_(self.fusion.bias)
        for conv in (*self.zero_convs, self.zero_conv_mid):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)


def is_untrained(branch: Mapping[str, Tensor] | None) -> bool:
    """Whether a branch of these weights has every zero convolution at zero: the image has no effect yet."""
    return branch is not None and not any(branch[name].float().any() for name in branch if name.startswith("zero_conv"))
