"""The model as three steps: what the branch adds, where, and that clips do not mix."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from tiny import config, inputs, random_model

from dreamvideo_core.common.batches import select
from dreamvideo_core.models.config import PRESETS
from dreamvideo_core.models.dreamvideo import DreamVideo
from dreamvideo_core.models.layers import Operations, TemporalConvLayer
from dreamvideo_core.models.retention import is_untrained
from dreamvideo_core.models.unet import skip_channels
from dreamvideo_core.sprites import render_batch, sample_clip
from dreamvideo_core.sprites.scene import seeded

KINDS = [
    {
        "fusion": fusion,
        "temporal_attention": attention,
        "temporal_attention_everywhere": everywhere,
        "transformer_in": first,
    }
    for fusion in ("add", "concat")
    for attention, everywhere, first in (("transformer", False, True), ("self_attention", True, False))
]


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def model(request) -> DreamVideo:
    return random_model(config(**request.param))


def flat(latents):
    return rearrange(latents, "b t c h w -> (b t) c h w")


@torch.no_grad()
def test_zero_convolutions_at_zero_leave_the_primary_unet_bit_for_bit(model):
    latents, timesteps, text, image = inputs(batch=2)
    alone = model(latents, timesteps, text)
    assert not torch.equal(model(latents, timesteps, text, image), alone)
    model.initialise()
    alone = model(latents, timesteps, text)
    assert is_untrained(model.retention.state_dict())
    for picture in (image, torch.ones_like(image), 100 * image):
        assert torch.equal(model(latents, timesteps, text, picture), alone)


@torch.no_grad()
def test_one_nonzero_weight_of_a_zero_convolution_changes_the_output(model):
    latents, timesteps, text, image = inputs()
    model.initialise()
    alone = model(latents, timesteps, text)
    for conv in (*model.retention.zero_convs, model.retention.zero_conv_mid):
        conv.bias[0] = 1.0
        assert not is_untrained(model.retention.state_dict())
        assert not torch.equal(model(latents, timesteps, text, image), alone)
        conv.bias[0] = 0.0


@torch.no_grad()
def test_the_branch_starts_as_a_copy_of_the_encoder(model):
    model.initialise()
    own = dict(model.unet.named_parameters())
    copied = {name: p for name, p in model.retention.named_parameters() if name in own}
    assert all(torch.equal(p, own[name]) for name, p in copied.items())
    encoder = {name for name in own if not name.startswith(("up_blocks", "conv_norm_out", "conv_out"))}
    assert set(copied) == encoder


@pytest.mark.parametrize("widths", [PRESETS[preset].retention.image_channels for preset in ("sprites", "modelscope")])
@torch.no_grad()
def test_the_branch_starts_with_eyes_for_images(widths):
    torch.manual_seed(0)
    preset = PRESETS["sprites"]
    model = DreamVideo(replace(preset, retention=replace(preset.retention, image_channels=widths))).initialise()
    scenes = [sample_clip(seeded("train", 0, number)) for number in range(8)]
    images = model.image_map(render_batch(scenes, num_frames=1, height=64, width=64)[:, 0])
    latents = model.retention.conv_in(torch.randn(8, 4, 8, 8))
    # What differs between images weighs as much as noise beside it: torch's own start has 5e-5 here.
    assert 0.25 < images.std(dim=0).mean() / latents.std(dim=0).mean() < 4


@torch.no_grad()
def test_fusion_by_concatenation_starts_as_the_sum():
    latents, timesteps, text, image = inputs()
    added, joined = (random_model(config(fusion=fusion)).initialise() for fusion in ("add", "concat"))
    for conv in added.retention.zero_convs:
        torch.nn.init.normal_(conv.weight)  # the branch is heard
    joined.load_state_dict(added.state_dict(), strict=False)
    made = added(latents, timesteps, text, image)
    torch.testing.assert_close(joined(latents, timesteps, text, image), made)
    assert not torch.allclose(made, added(latents, timesteps, text, -image))


@torch.no_grad()
def test_the_start_leaves_every_frame_to_itself_in_the_temporal_convolutions(model):
    model.initialise()
    for block in (*model.unet.down_blocks, model.unet.mid_block, *model.unet.up_blocks):
        for layer in block.temp_convs:
            channels = layer.conv1[0].num_channels
            x = torch.randn(6, channels, 2, 2)
            assert torch.equal(layer(x, 3), x)


@torch.no_grad()
def test_one_residual_per_skip_and_one_for_the_mid_block(model):
    latents, timesteps, text, image = inputs(batch=2)
    encoding = model.encode(flat(latents), timesteps, text, 3)
    residuals = model.retain(flat(latents), model.image_map(image), timesteps, text, 3)
    assert [r.shape for r in residuals.skips] == [s.shape for s in encoding.skips]
    assert residuals.mid.shape == encoding.mid.shape
    assert [s.shape[1] for s in encoding.skips] == skip_channels(model.config.unet)


@torch.no_grad()
def test_residuals_are_added_to_the_skips_and_the_mid_output(model):
    latents, timesteps, text, image = inputs()
    encoding = model.encode(flat(latents), timesteps, text, 3)
    residuals = model.retain(flat(latents), model.image_map(image), timesteps, text, 3)
    skips = tuple(s + r for s, r in zip(encoding.skips, residuals.skips, strict=True))
    added = encoding._replace(skips=skips, mid=encoding.mid + residuals.mid)
    assert torch.equal(model.decode(encoding, residuals), model.decode(added))


@torch.no_grad()
def test_a_shared_encoding_gives_what_full_passes_give(model):
    latents, timesteps, text, image = inputs(batch=2)
    encoding = model.encode(flat(latents), timesteps, text, 3)
    for picture in (image, torch.ones_like(image), None):
        residuals = None
        if picture is not None:
            residuals = model.retain(flat(latents), model.image_map(picture), timesteps, text, 3)
        shared = model.decode(encoding, residuals)
        torch.testing.assert_close(shared, flat(model(latents, timesteps, text, picture)), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_two_clips_in_a_batch_equal_two_runs(model):
    many = inputs(batch=2)
    together = model(*many)
    for row in range(2):
        torch.testing.assert_close(together[row : row + 1], model(*(x[row : row + 1] for x in many)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@torch.no_grad()
def test_selecting_clips_of_an_encoding(model):
    latents, timesteps, text, _ = inputs(batch=2)
    encoding = model.encode(flat(latents), timesteps, text, 3)
    both = rearrange(model.decode(encoding), "(b t) c h w -> b t c h w", t=3)
    chosen = rearrange(model.decode(select(encoding, [1, 0, 1], count=2)), "(b t) c h w -> b t c h w", t=3)
    torch.testing.assert_close(chosen, both[[1, 0, 1]], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 4, 4), (1, 3, 5), (2, 1, 1), (5, 7, 3)])
def test_single_frames_and_odd_sizes(model, frames, height, width):
    latents, timesteps, text, image = inputs(2, frames, height, width)
    prediction = model(latents, timesteps, text, image)
    assert prediction.shape == latents.shape
    assert prediction.isfinite().all()


@torch.no_grad()
def test_frames_of_a_clip_see_each_other_and_other_clips_do_not(model):
    latents, timesteps, text, image = inputs(batch=2)
    before = model(latents, timesteps, text, image)
    latents[0, 2] += 1.0
    changed = (model(latents, timesteps, text, image) - before).abs().amax((2, 3, 4)) > 1e-5
    assert changed[0].all()
    assert not changed[1].any()


@torch.no_grad()
def test_frame_positions_tell_the_order_of_time():
    latents, timesteps, text, _ = inputs()
    for positions in (False, True):
        model = random_model(config(temporal_positions=positions))
        for module in model.modules():
            if isinstance(module, TemporalConvLayer):
                module.zero()  # temporal convolutions would see the order as well
        backwards = model(latents.flip(1), timesteps, text).flip(1)
        assert torch.allclose(model(latents, timesteps, text), backwards, atol=1e-5) == (not positions)


def test_a_model_without_a_branch_says_that_it_takes_no_image():
    latents, timesteps, text, image = inputs()
    with pytest.raises(ValueError, match=r"no retention branch; a U-Net that sees"):
        random_model(config(retention=False))(latents, timesteps, text, image)


def test_the_papers_preset_trains_as_many_parameters_as_the_paper():
    """680M, temporal layers and branch together."""
    model = DreamVideo(PRESETS["paper"], Operations(device="meta"))
    trained = sum(p.numel() for _, p in model.temporal_parameters()) + sum(p.numel() for p in model.retention.parameters())
    assert trained == pytest.approx(680e6, rel=0.02)
    assert all(hasattr(block, "temp_attentions") for block in (*model.unet.down_blocks, *model.unet.up_blocks))


def test_the_public_layout_has_12_skips_and_its_known_size():
    model = DreamVideo(PRESETS["modelscope"], Operations(device="meta"))
    assert sum(p.numel() for p in model.unet.parameters()) == 1_411_233_860
    assert len(model.retention.zero_convs) == 12
    assert [conv.out_channels for conv in model.retention.zero_convs] == [320] * 4 + [640] * 3 + [1280] * 5
    assert model.retention.zero_conv_mid.out_channels == 1280
