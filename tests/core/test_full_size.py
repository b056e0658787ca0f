"""The public model at its true size, with random weights. Minutes and 15 GB: run with -m slow."""

import pytest
import torch
from diffusers import UNet3DConditionModel
from einops import rearrange

from dreamvideo_core.config import MODELSCOPE
from dreamvideo_core.layers import LayerFactory
from dreamvideo_core.model import UNet

pytestmark = pytest.mark.slow


@torch.no_grad()
def test_the_full_model_predicts_what_diffusers_does():
    torch.manual_seed(0)
    theirs = UNet3DConditionModel(cross_attention_dim=1024, attention_head_dim=64).eval()
    for parameter in theirs.parameters():  # some start at zero, which would hide what they do
        parameter.data += 0.01 * torch.randn_like(parameter)
    ours = UNet(MODELSCOPE.unet, LayerFactory(device="meta")).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    latents, text, timesteps = torch.randn(1, 4, 8, 32, 32), torch.randn(1, 77, 1024), torch.tensor([321])
    expected = theirs(latents, timesteps, text).sample
    encoding = ours.encode(rearrange(latents, "b c t h w -> (b t) c h w"), timesteps, text, 8)
    got = rearrange(ours.decode(encoding), "(b t) c h w -> b c t h w", t=8)
    error = ((got - expected).norm() / expected.norm()).item()
    print(f"relative error {error:.2e}")
    assert error < 1e-4
