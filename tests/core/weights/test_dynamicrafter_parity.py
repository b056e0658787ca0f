"""Small models under DynamiCrafter's public names against what its own code made of the same weights and inputs.

The outputs are stored (`data/dynamicrafter_outputs.safetensors`), how they were made stands in that file's metadata.
"""

import lvdm_files
import pytest
import torch
from lvdm_files import DATA, TEXTS, inputs, sample, small_config
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamvideo_core.models.autoencoder import build_autoencoder
from dreamvideo_core.models.image_conditions import ImageConditions, Resampler
from dreamvideo_core.models.layers import Operations
from dreamvideo_core.models.text_encoder import TextEncoder
from dreamvideo_core.models.unet import UNet
from dreamvideo_core.weights.dynamicrafter import open_dynamicrafter
from dreamvideo_core.weights.tensor_files import LazyTensors

FRAMES = 16
MOST = 1e-5  # relative error


@pytest.fixture(scope="module", params=["256", "512"])
def size(request):
    return request.param


@pytest.fixture(scope="module")
def parts(size):
    """The parts of a small model as they come out of its file."""
    with pytest.MonkeyPatch.context() as patch:
        lvdm_files.use_small_models(patch)
        tensors = LazyTensors.of(lvdm_files.state(f"dynamicrafter_{size}"))
        opened = open_dynamicrafter(tensors, "model.ckpt", f"dynamicrafter_{size}")
        return {part: dict(state) for part, state in opened.parts.items()}


@pytest.fixture(scope="module")
def config(size):
    return small_config(f"dynamicrafter_{size}")


@pytest.fixture(scope="module")
def expected():
    return load_file(DATA / "dynamicrafter_outputs.safetensors")


def error(made: Tensor, expected: Tensor) -> float:
    return ((sample(made) - expected).norm() / expected.norm()).item()


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_the_unet(size, parts, config, expected, batch):
    unet = UNet(config.unet, Operations()).eval()
    unet.load_state_dict(parts["unet"])
    given = inputs(batch)
    image = ImageConditions(given["image_latents"].flatten(0, 1), given["tokens"].flatten(0, 1), given["fps"])
    encoding = unet.encode(given["latents"].flatten(0, 1), given["timesteps"], given["text"], FRAMES, image)
    assert error(unet.decode(encoding), expected[f"unet.{size}.{batch}"]) < MOST


def test_learned_scales_have_an_effect(expected):
    """What is stored would tell a model that left them out."""
    one, other = expected["unet.256.1"], expected["unet.512.1"]
    assert (one - other).norm() / one.norm() > 100 * MOST


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_the_resampler(parts, config, expected, batch):
    resampler = Resampler(config.resampler, Operations()).eval()
    resampler.load_state_dict(parts["resampler"])
    assert error(resampler(inputs(batch)["hidden"]), expected[f"resampler.{batch}"]) < MOST


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_the_autoencoder(parts, config, expected, batch):
    autoencoder = build_autoencoder(config.vae).eval()
    autoencoder.load_state_dict(parts["vae"])
    given = inputs(batch)
    assert error(autoencoder.decode(given["latents"][:, 0]), expected[f"vae.decoded.{batch}"]) < MOST
    assert error(autoencoder.encode(given["image"]), expected[f"vae.encoded.{batch}"]) < MOST


@torch.no_grad()
def test_the_text_encoder(parts, config, expected):
    """OpenCLIP's output before its last layer, through its last norm."""
    encoder = TextEncoder(config.text_encoder).eval()
    encoder.load_file_state(parts["text_encoder"])
    assert error(encoder.encode(TEXTS), expected["text"]) < MOST


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2])
def test_the_vision_encoder(parts, config, expected, batch):
    """OpenCLIP's last hidden state without the norm behind it, and its embedding, of prepared pictures."""
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vars(config.image_encoder))).eval()
    model.load_state_dict(parts["image_encoder"])
    seen = model(pixel_values=inputs(batch)["prepared"])
    assert error(seen.last_hidden_state, expected[f"vision.{batch}"]) < MOST
    assert error(seen.image_embeds, expected[f"projected.{batch}"]) < MOST
