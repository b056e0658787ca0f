"""The small autoencoder against diffusers' AutoencoderTiny, and what its latents mean."""

import pytest
import torch

from dreamvideo_core.models.autoencoder import SCALE_FACTOR, Autoencoder


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder().eval()


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40)])
def test_sizes(autoencoder, height, width):
    image = torch.rand(2, 3, height, width) * 2 - 1
    latents = autoencoder.encode(image)
    assert latents.shape == (2, 4, height // 8, width // 8)
    assert autoencoder.decode(latents).shape == image.shape


@torch.no_grad()
def test_it_is_taesd(autoencoder):
    theirs = pytest.importorskip("diffusers").AutoencoderTiny().eval()
    ours = autoencoder.state_dict()
    encoder = {k.removeprefix("taesd_encoder."): v for k, v in ours.items() if k.startswith("taesd_encoder.")}
    decoder = {k.removeprefix("taesd_decoder."): v for k, v in ours.items() if k.startswith("taesd_decoder.")}
    theirs.encoder.layers.load_state_dict(encoder)
    shifted = {f"{int(k.split('.', 1)[0]) - 1}.{k.split('.', 1)[1]}": v for k, v in decoder.items()}  # ours clamps first
    theirs.decoder.layers.load_state_dict(shifted)
    image = torch.rand(1, 3, 16, 24) * 2 - 1
    latents = theirs.encode(image).latents
    torch.testing.assert_close(autoencoder.encode(image) * SCALE_FACTOR, latents, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(autoencoder.decode(latents / SCALE_FACTOR), theirs.decode(latents).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_latents_are_on_the_scale_of_stable_diffusions(autoencoder):
    image = torch.rand(1, 3, 8, 8) * 2 - 1
    raw = autoencoder.taesd_encoder(image * 0.5 + 0.5)
    torch.testing.assert_close(autoencoder.encode(image) * SCALE_FACTOR, raw)
    torch.testing.assert_close(autoencoder.decode(raw / SCALE_FACTOR) * 0.5 + 0.5, autoencoder.taesd_decoder(raw))
