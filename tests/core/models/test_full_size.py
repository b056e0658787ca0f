"""The public model at its true size, with random weights. Minutes and 15 GB: run with -m slow."""

import pytest
import torch
from diffusers import UNet3DConditionModel
from einops import rearrange
from torch import Tensor

from dreamvideo_core.models.config import MODELSCOPE
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.models.unet import UNet

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def theirs() -> UNet3DConditionModel:
    torch.manual_seed(0)
    model = UNet3DConditionModel(cross_attention_dim=1024, attention_head_dim=64).eval()
    for parameter in model.parameters():  # some start at zero, which would hide what they do
        parameter.data += 0.01 * torch.randn_like(parameter)
    return model


@torch.no_grad()
def relative_error(theirs: UNet3DConditionModel, dtype: torch.dtype, frames: int, size: int) -> float:
    """Ours in `dtype` against diffusers' in float32."""
    ours = UNet(MODELSCOPE.unet, Operations(device="meta")).eval()
    ours.load_state_dict({name: tensor.to(dtype) for name, tensor in theirs.state_dict().items()}, assign=True)
    torch.manual_seed(1)
    latents, text, timesteps = torch.randn(1, 4, frames, size, size), torch.randn(1, 77, 1024), torch.tensor([321])
    expected = theirs(latents, timesteps, text).sample
    rows = rearrange(latents, "b c t h w -> (b t) c h w").to(dtype)
    got: Tensor = ours.decode(ours.encode(rows, timesteps, text.to(dtype), frames)).float()
    got = rearrange(got, "(b t) c h w -> b c t h w", t=frames)
    error = ((got - expected).norm() / expected.norm()).item()
    print(f"{dtype}, {frames} frames of {8 * size} x {8 * size}: relative error {error:.2e}")
    return error


def test_the_full_model_predicts_what_diffusers_does(theirs: UNet3DConditionModel):
    assert relative_error(theirs, torch.float32, 8, 32) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near(theirs: UNet3DConditionModel, dtype: torch.dtype):
    assert relative_error(theirs, dtype, 4, 16) < 0.05  # an overflow would make it no number
