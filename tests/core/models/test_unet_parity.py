"""The primary U-Net against diffusers' UNet3DConditionModel, whose names and arithmetic it has."""

import pytest
import torch
from diffusers import UNet3DConditionModel
from einops import rearrange

from dreamvideo_core.models.config import UNetConfig
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.models.unet import UNet

SETTINGS = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
    "layers_per_block": 2,
    "norm_num_groups": 8,
    "cross_attention_dim": 24,
    "attention_head_dim": 8,
}


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    theirs = UNet3DConditionModel(**SETTINGS).eval()
    for parameter in theirs.parameters():  # some start at zero, which would hide what they do
        parameter.data += 0.05 * torch.randn_like(parameter)
    ours = UNet(UNetConfig(**SETTINGS), Operations()).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@torch.no_grad()
@pytest.mark.parametrize(("batch", "frames", "height", "width"), [(2, 4, 8, 8), (1, 1, 8, 12), (2, 3, 12, 4), (1, 2, 7, 9)])
def test_equal_predictions(pair, batch, frames, height, width):
    ours, theirs = pair
    latents, text = torch.randn(batch, 4, frames, height, width), torch.randn(batch, 7, 24)
    timesteps = torch.randint(0, 1000, (batch,))
    expected = theirs(latents, timesteps, text).sample
    encoding = ours.encode(rearrange(latents, "b c t h w -> (b t) c h w"), timesteps, text, frames)
    got = rearrange(ours.decode(encoding), "(b t) c h w -> b c t h w", t=frames)
    assert (got - expected).norm() / expected.norm() < 1e-5
