"""Pictures to what CLIP sees of them."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny import DYNAMICRAFTER
from torch import Tensor

from dreamvideo_core.models.config import ResamplerConfig, VisionConfig
from dreamvideo_core.models.image_conditions import Resampler
from dreamvideo_core.models.image_encoder import ImageEncoder, grey_image, prepare
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.weights.expected_weights import expected_weights

MEAN, DEVIATION = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])[..., None, None]
THEIRS = json.loads((Path(__file__).parent / "data" / "lvdm_preprocess.json").read_text())["pictures"]


@pytest.fixture(scope="module")
def encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(DYNAMICRAFTER.image_encoder).eval()


def picture(height: int, width: int) -> Tensor:
    c, y, x = torch.meshgrid(torch.arange(3.0), torch.arange(1.0 * height), torch.arange(1.0 * width), indexing="ij")
    return torch.sin(0.21 * (c + 1) * y + 0.13 * x * (1 + 0.3 * c))[None]


@pytest.mark.parametrize("theirs", THEIRS, ids=lambda theirs: f"{theirs['width']} x {theirs['height']}")
def test_pictures_are_prepared_as_dynamicrafter_does(theirs):
    """Its own function's values, stored: they are compared where they were kept."""
    made = prepare(picture(theirs["height"], theirs["width"]))
    assert made.shape == (1, 3, 224, 224)
    torch.testing.assert_close(made[0, :, ::37, ::37].flatten(), torch.tensor(theirs["values"]), rtol=1e-5, atol=1e-5)


def blurred(image: Tensor, factor: float, axis: int) -> Tensor:
    """By a Gaussian with a deviation of (factor - 1) / 2 along one axis, mirrored at the border."""
    sigma = max((factor - 1) / 2, 0.001)
    radius = max(int(4 * sigma), 3) // 2
    weights = torch.exp(-((torch.arange(-radius, radius + 1) / sigma) ** 2) / 2)
    lines = F.pad(image.movedim(axis, -1), (radius, radius, 0, 0), mode="reflect").unfold(-1, len(weights), 1)
    return (lines @ (weights / weights.sum())).movedim(-1, axis)


@pytest.mark.parametrize(("height", "width"), [(320, 512), (100, 60)])
def test_preparing_is_the_formula_written_out(height, width):
    """Blurred where it shrinks, then bicubic from corner to corner, in a square whatever the shape was."""
    image = picture(height, width)
    smooth = blurred(blurred(image, height / 224, -2), width / 224, -1) if max(height, width) > 224 else image
    square = F.interpolate(smooth, (224, 224), mode="bicubic", align_corners=True)
    torch.testing.assert_close(prepare(image), ((square + 1) / 2 - MEAN) / DEVIATION, rtol=1e-4, atol=1e-4)


def test_grey_is_grey_whatever_its_size():
    torch.testing.assert_close(prepare(grey_image()), ((0.5 - MEAN) / DEVIATION).expand(1, 3, 224, 224))
    torch.testing.assert_close(prepare(torch.zeros(1, 3, 40, 512)), prepare(grey_image()))


def test_states_are_one_for_the_picture_and_one_for_each_patch(encoder):
    images = torch.cat([picture(16, 24), -picture(16, 24)])
    states = encoder.encode(images)
    assert states.shape == (2, 1 + 4, 16)
    torch.testing.assert_close(encoder.encode(images[1:]), states[1:])


def test_states_are_those_before_the_final_norm(encoder):
    before = encoder.encode(picture(28, 28))
    model = encoder.model.vision_model
    with torch.no_grad():
        hidden = model.pre_layrnorm(model.embeddings(prepare(picture(28, 28), 28)))
        for layer in model.encoder.layers:
            attention = layer.self_attn
            normed = layer.layer_norm1(hidden)
            parts = (attention.q_proj, attention.k_proj, attention.v_proj)
            heads = (part(normed).unflatten(-1, (2, 8)).transpose(1, 2) for part in parts)
            mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
            hidden = hidden + attention.out_proj(mixed)
            hidden = hidden + layer.mlp.fc2(F.gelu(layer.mlp.fc1(layer.layer_norm2(hidden))))
    torch.testing.assert_close(before, hidden, rtol=1e-4, atol=1e-5)


def test_weights_go_to_a_file_and_back(encoder):
    state = encoder.file_state()
    expected = expected_weights(DYNAMICRAFTER, "image_encoder")
    assert {name: tensor.shape for name, tensor in state.items()} == {name: outline.shape for name, outline in expected.items()}
    other = ImageEncoder(DYNAMICRAFTER.image_encoder).eval()
    assert not torch.allclose(other.encode(picture(8, 8)), encoder.encode(picture(8, 8)), atol=1e-2)
    other.load_file_state(state)
    assert torch.equal(other.encode(picture(8, 8)), encoder.encode(picture(8, 8)))


def test_the_public_models_size():
    """OpenCLIP's ViT-H, and DynamiCrafter's 16 tokens for each of 16 frames."""
    with torch.device("meta"):
        encoder = ImageEncoder(VisionConfig())
        states = encoder(torch.empty(2, 3, 224, 224))
        tokens = Resampler(ResamplerConfig(), Operations(device="meta"))(states)
    assert sum(weight.numel() for weight in encoder.parameters()) == 632_076_800
    assert states.shape == (2, 257, 1280) and tokens.shape == (2 * 16, 16, 1024)
