"""The small autoencoder: RGB to 4-channel latents at an eighth of the size, in the TAESD layout.

Key names and arithmetic are those of TAESD with `vae_scale` and `vae_shift`, so ComfyUI's own VAE class loads the
same weights. Full-size autoencoders are the host's own in ComfyUI, and diffusers' everywhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .config import AutoencoderConfig

SCALE_FACTOR = 0.18215  # Stable Diffusion's: the model sees SCALE_FACTOR * encode(image)
_WIDTH = 64


def _conv(in_channels: int, out_channels: int, **options) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, **options)


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class _Block(nn.Module):
    def __init__(self, width: int = _WIDTH):
        super().__init__()
        self.conv = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))
        self.fuse = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.fuse(self.conv(x) + x)


def _encoder(latent_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3, _WIDTH), _Block()]
    for _ in range(3):
        layers += [_conv(_WIDTH, _WIDTH, stride=2, bias=False), _Block(), _Block(), _Block()]
    return nn.Sequential(*layers, _conv(_WIDTH, latent_channels))


def _decoder(latent_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = [_Clamp(), _conv(latent_channels, _WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [_Block(), _Block(), _Block(), nn.Upsample(scale_factor=2), _conv(_WIDTH, _WIDTH, bias=False)]
    return nn.Sequential(*layers, _Block(), _conv(_WIDTH, 3))


def _pass_through(conv: nn.Conv2d) -> None:
    """Each channel to itself: its 3 x 3 mean where the convolution halves the picture, its centre elsewhere."""
    conv.weight.mul_(0.2)
    diagonal = conv.weight.diagonal()  # (3, 3, channels)
    if conv.stride == (2, 2):
        diagonal.add_(1 / 9)
    else:
        diagonal[1, 1].add_(1)


# Rows: 4 (luma - 0.5), 6 (red - luma), 6 (blue - luma) of RGB in [0, 1].
_LUMA = torch.tensor([0.299, 0.587, 0.114])
_COLOUR_CODE = torch.stack([4 * _LUMA, 6 * (torch.eye(3)[0] - _LUMA), 6 * (torch.eye(3)[2] - _LUMA)])


def _carry_colour(encoder: nn.Sequential, decoder: nn.Sequential) -> None:
    """Send RGB through the first channels of the encoder, its code through the latents, and back to RGB."""
    for conv, matrix in ((encoder[0], torch.eye(3)), (encoder[-1], _COLOUR_CODE)):
        conv.weight.mul_(0.2)
        conv.weight[:3] *= 0.1
        conv.weight[:3, :3, 1, 1] = matrix
    encoder[-1].bias[0] = -2
    # Behind a ReLU a signed number takes two channels.
    signed = torch.cat([torch.eye(3), -torch.eye(3)])
    decoder[1].weight[:6] *= 0.1
    decoder[1].weight[:6, :3, 1, 1] = signed
    decoder[-1].weight.mul_(0.1)
    decoder[-1].weight[:, :6, 1, 1] = torch.linalg.inv(_COLOUR_CODE) @ signed.T
    decoder[-1].bias.fill_(0.5)


class Autoencoder(nn.Module):
    """RGB (N, 3, H, W) in [-1, 1] to latents (N, C, H/8, W/8) and back; H and W are multiples of 8."""

    def __init__(self, latent_channels: int = 4):
        super().__init__()
        self.latent_channels = latent_channels
        self.taesd_encoder = _encoder(latent_channels)
        self.taesd_decoder = _decoder(latent_channels)
        self.vae_scale = nn.Parameter(torch.tensor(SCALE_FACTOR))
        self.vae_shift = nn.Parameter(torch.tensor(0.0))

    @torch.no_grad()
    def initialise(self) -> Autoencoder:
        """Start near a code of each cell's colour: learning goes on from there instead of waiting for colours.

        Blocks begin near the identity, the convolutions between them as an average (down) or a copy (up). Three latent
        channels carry luma and two colour differences, each near unit variance, and the decoder adds them up again.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is None:
                    _pass_through(module)
                else:
                    nn.init.zeros_(module.bias)
        for block in self.modules():
            if isinstance(block, _Block):
                block.conv[-1].weight.mul_(0.1)
        _carry_colour(self.taesd_encoder, self.taesd_decoder)
        return self

    def encode(self, image: Tensor) -> Tensor:
        """Latents on the scale of a Stable Diffusion VAE, before SCALE_FACTOR."""
        return self.taesd_encoder(image * 0.5 + 0.5) / self.vae_scale + self.vae_shift

    def decode(self, latents: Tensor) -> Tensor:
        """The image of latents as `encode` gives them; not clamped."""
        return (self.taesd_decoder((latents - self.vae_shift) * self.vae_scale) - 0.5) * 2


def build_autoencoder(config: AutoencoderConfig) -> nn.Module:
    """A fresh autoencoder with `encode` and `decode` as `Autoencoder` has them; "kl" needs the extra `full`."""
    if config.layout == "taesd":
        return Autoencoder(config.latent_channels).initialise()
    from diffusers import AutoencoderKL

    class FullSizeAutoencoder(AutoencoderKL):
        def encode(self, image: Tensor) -> Tensor:
            return super().encode(image).latent_dist.mean

        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents).sample

    levels = len(config.block_out_channels)
    return FullSizeAutoencoder(
        latent_channels=config.latent_channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )
