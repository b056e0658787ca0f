"""What other nodes hang on a model: patches of guidance and attention act as in ComfyUI's U-Net, or are named and idle."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server
from graphs import FRAMES, SHIPPED, SIZE, image_to_video, node
from sampling import sample

CLOSE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


def encode(host: InProcessComfyUI, clip: Any, size: int = SIZE, strength: float = 1.0) -> tuple:
    """(positive, negative, latent) of two clips with a picture."""
    texts = [host.call("CLIPTextEncode", clip=clip, text=t)[0] for t in ("the red circle moves left", "")]
    picture = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(0))
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=picture, width=size, height=size, frames=FRAMES,
        batch_size=2, fit="crop", strength=strength, start=0.0, end=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def conditioned(host: InProcessComfyUI, loaded: tuple) -> tuple:
    return encode(host, loaded[1])


def ksampler(host: InProcessComfyUI, model: Any, given: tuple) -> torch.Tensor:
    positive, negative, latent = given
    return host.call(
        "KSampler", model=model, seed=3, steps=2, cfg=2.0, sampler_name="ddim", scheduler="simple", positive=positive,
        negative=negative, latent_image=latent, denoise=1.0,
    )[0]["samples"]  # fmt: skip


def one_by_one(loaded: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ComfyUI evaluate each condition in a call of its own."""
    monkeypatch.setattr(loaded[0].model, "memory_required", lambda *args, **kwargs: 1e30)


SCALES = [(2.0, 1.5), (1.5, 1.5), (1.0, 2.0), (1.0, 1.0), (0.0, 1.5), (2.0, 0.0)]


@pytest.mark.parametrize("order", ["text_first", "image_first"])
@pytest.mark.parametrize(("s_t", "s_i"), SCALES)
def test_post_cfg_functions_see_real_evaluations(host, loaded, conditioned, order, s_t, s_i):
    """What PerturbedAttentionGuidance and its kin do without an effect on the model adds nothing, whatever the scales."""
    import comfy.samplers

    seen = []

    def compare(args: dict) -> torch.Tensor:
        for which in ("cond", "uncond"):
            if args[which] is not None:
                (again,) = comfy.samplers.calc_cond_batch(
                    args["model"], [args[which]], args["input"], args["sigma"], args["model_options"]
                )
                seen.append((which, (args[f"{which}_denoised"] - again).abs().max()))
        return args["denoised"]

    patched = loaded[0].clone()
    patched.set_model_sampler_post_cfg_function(compare)
    scales = {"text_scale": s_t, "image_scale": s_i, "order": order}
    made = sample(host, patched, conditioned, **scales)
    assert {"cond"} <= {which for which, _ in seen} and all(difference < 1e-3 for _, difference in seen)
    torch.testing.assert_close(made, sample(host, loaded[0], conditioned, **scales), rtol=0, atol=0)


def test_post_cfg_functions_see_the_empty_condition_where_they_ask_for_it(host, loaded, conditioned):
    seen = []
    patched = loaded[0].clone()
    patched.set_model_sampler_post_cfg_function(lambda args: seen.append(args) or args["denoised"], True)
    sample(host, patched, conditioned, text_scale=1.0, image_scale=1.0, steps=1)
    _, negative, latent = conditioned
    without = [[text, {k: v for k, v in o.items() if not k.startswith("retention")}] for text, o in negative]
    empty = sample(host, loaded[0], (without, without, latent), text_scale=1.0, image_scale=1.0, steps=1)
    scaled = loaded[0].model.process_latent_out(seen[0]["uncond_denoised"])
    torch.testing.assert_close(scaled, empty, **CLOSE)


def test_functions_for_guidance_still_act_on_the_whole_result(host, loaded, conditioned):
    """Pre-CFG and CFG functions see two conditions whose two-term form is the sum of all evaluations."""
    plain = sample(host, loaded[0], conditioned)
    patched, seen = loaded[0].clone(), []
    patched.set_model_sampler_pre_cfg_function(lambda args: seen.append(args) or args["conds_out"])
    patched.set_model_sampler_cfg_function(lambda args: args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"]))
    torch.testing.assert_close(sample(host, patched, conditioned), plain, **CLOSE)
    assert len(seen) == 2 and all(len(args["conds_out"]) == 2 for args in seen)


@pytest.mark.parametrize(("s_t", "s_i"), SCALES)
def test_functions_in_place_of_the_evaluations_get_two_conditions(host, loaded, conditioned, s_t, s_i):
    """As those of the stock node that skips layers of transformers, of which this model has none."""
    (patched,) = host.call(
        "SkipLayerGuidanceDiTSimple", model=loaded[0], double_layers="7", single_layers="7", start_percent=0.0, end_percent=1.0
    )
    scales = {"text_scale": s_t, "image_scale": s_i}
    plain = sample(host, loaded[0], conditioned, **scales)
    torch.testing.assert_close(sample(host, patched, conditioned, **scales), plain, **CLOSE)


@pytest.mark.parametrize("scales", [(2.0, 1.5), (1.5, 1.5)])
def test_perturbed_attention_guidance_acts(host, loaded, conditioned, monkeypatch, scales):
    """By its formula: guided + scale (f(t,i) - f(t,i) with the values in place of the middle block's self-attention)."""
    scales = {"text_scale": scales[0], "image_scale": scales[1], "steps": 1}
    (patched,) = host.call("PerturbedAttentionGuidance", model=loaded[0], scale=3.0)
    made = sample(host, patched, conditioned, **scales)
    full = {"text_scale": 1.0, "image_scale": 1.0, "steps": 1}
    plain, evaluation = sample(host, loaded[0], conditioned, **scales), sample(host, loaded[0], conditioned, **full)
    attention = loaded[0].model.diffusion_model.mid_block.attentions[0].transformer_blocks[0].attn1
    monkeypatch.setattr(attention, "attend", lambda query, key, value, heads: value)
    perturbed = sample(host, loaded[0], conditioned, **full)
    assert (evaluation - perturbed).abs().max() > 1e-2
    torch.testing.assert_close(made, plain + 3 * (evaluation - perturbed), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("ours", [True, False], ids=["Dual CFG Sampler", "KSampler"])
def test_self_attention_guidance_acts(host, loaded, monkeypatch, ours):
    """On the scores of the empty condition, in one call and in several."""
    given = encode(host, loaded[1], size=64)
    (patched,) = host.call("SelfAttentionGuidance", model=loaded[0], scale=0.5, blur_sigma=2.0)
    run = sample if ours else ksampler
    made = run(host, patched, given)
    assert made.isfinite().all() and (made - run(host, loaded[0], given)).abs().max() > 1e-3
    one_by_one(loaded, monkeypatch)
    torch.testing.assert_close(run(host, patched, given), made, rtol=1e-2, atol=1e-2)


def test_patches_know_rows_by_comfyuis_order(host, loaded, conditioned):
    """Conditions one after the other, frames as rows of each, index 0 for f(t,i) and 1 for the empty one."""
    patched, seen = loaded[0].clone(), []

    def look(query, key, value, options):
        from comfy.ldm.modules.attention import optimized_attention

        seen.append((query.shape, key.shape, options))
        return optimized_attention(query, key, value, options["n_heads"])

    blocks = loaded[0].model.diffusion_model.attention_blocks
    for block in blocks:
        patched.set_model_attn2_replace(look, *block)
    plain = sample(host, loaded[0], conditioned, steps=1)
    torch.testing.assert_close(sample(host, patched, conditioned, steps=1), plain, **CLOSE)
    assert [options["block"] for _, _, options in seen] == blocks
    for query, key, options in seen:
        assert options["cond_or_uncond"] == [2, 1, 0]
        assert query[0] == key[0] == 3 * 2 * FRAMES and key[1] == 77
        assert options["original_shape"] == [3 * 2 * FRAMES, 4, SIZE // 8, SIZE // 8]
        assert options["n_heads"] * options["dim_head"] == query[2]
        assert options["block_index"] == 0
    assert [options["transformer_index"] for _, _, options in seen] == list(range(len(blocks)))


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_patches_may_treat_conditions_differently(host, loaded, strength):
    """One that silences the text of the empty condition alone, though both conditions have the same text."""
    given = encode(host, loaded[1], strength=strength)
    patched, negative = loaded[0].clone(), given[1]

    def silence(made: torch.Tensor, options: dict) -> torch.Tensor:
        chunks = zip(made.chunk(len(options["cond_or_uncond"])), options["cond_or_uncond"], strict=True)
        return torch.cat([chunk * (index != 1) for chunk, index in chunks])

    patched.set_model_attn2_output_patch(silence)
    everywhere = loaded[0].clone()
    everywhere.set_model_attn2_output_patch(lambda made, options: made * 0)
    one = {"steps": 1, "text_scale": 1.0, "image_scale": 1.0}
    without = [[text, {k: v for k, v in o.items() if not k.startswith("retention")}] for text, o in negative]
    empty = sample(host, everywhere, (without, without, given[2]), **one)
    assert (empty - sample(host, loaded[0], (without, without, given[2]), **one)).abs().max() > 1e-3
    whole = sample(host, loaded[0], (negative, negative, given[2]), **one)
    made = sample(host, patched, (negative, negative, given[2]), **{**one, "image_scale": 2.0})
    torch.testing.assert_close(made, empty + 2.0 * (whole - empty), **CLOSE)


@pytest.mark.parametrize("kind", ["attn1", "attn2"])
def test_patches_before_and_behind_attention_act(host, loaded, conditioned, kind):
    plain = sample(host, loaded[0], conditioned)
    for change, acts in (
        (lambda q, k, v, o: (q, k, v), False),
        (lambda q, k, v, o: (q, k, v * 2), True),
        (lambda q, k, v, o: (q, k * 0, v), True),
    ):
        patched = loaded[0].clone()
        patched.set_model_patch(change, f"{kind}_patch")
        difference = (sample(host, patched, conditioned) - plain).abs().max()
        assert (difference > 1e-2) if acts else (difference < 1e-3)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("HyperTile", {"tile_size": 16, "swap_size": 2, "max_depth": 2, "scale_depth": False}),
        ("TomePatchModel", {"ratio": 0.4}),
    ],
)
def test_stock_nodes_that_patch_attention(host, loaded, name, inputs):
    given = encode(host, loaded[1], size=128)
    (patched,) = host.call(name, model=loaded[0], **inputs)
    made = sample(host, patched, given, steps=1)
    assert made.isfinite().all() and (made - sample(host, loaded[0], given, steps=1)).abs().max() > 1e-4


def with_override(model: Any, override: Any) -> Any:
    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = override
    return patched


def test_an_attention_override_gets_every_attention(host, loaded, conditioned, monkeypatch):
    calls, widths = [], []

    def count(function, query, key, value, heads, **options):
        calls.append(options["transformer_options"]["cond_or_uncond"])
        return function(query, key, value, heads=heads, **options)

    plain = sample(host, loaded[0], conditioned, steps=1)
    made = sample(host, with_override(loaded[0], count), conditioned, steps=1)
    torch.testing.assert_close(made, plain, **CLOSE)
    unet = loaded[0].model.diffusion_model
    layers = [module for module in unet.modules() if type(module).__name__ == "Attention"]
    assert len(calls) == len(layers) > 20
    for layer in layers:
        monkeypatch.setattr(layer, "attend", lambda query, key, value, heads: widths.append(heads) or torch.zeros_like(query))
    silent = sample(host, loaded[0], conditioned, steps=1)
    assert len(widths) == len(layers)
    monkeypatch.undo()
    nothing = with_override(loaded[0], lambda function, query, *args, **options: torch.zeros_like(query))
    torch.testing.assert_close(sample(host, nothing, conditioned, steps=1), silent, **CLOSE)
    assert (silent - plain).abs().max() > 1e-2


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_an_attention_override_may_tell_conditions_apart(host, loaded, monkeypatch, strength):
    given = encode(host, loaded[1], strength=strength)

    def last_condition_alone(function, query, key, value, heads, **options):
        made = function(query, key, value, heads=heads, **options)
        conditions = options["transformer_options"]["cond_or_uncond"]
        chunks = zip(made.chunk(len(conditions)), conditions, strict=True)
        return torch.cat([chunk * (1 + (index == 2)) for chunk, index in chunks])

    patched = with_override(loaded[0], last_condition_alone)
    for sampling in ({}, {"retention_every": 2, "steps": 4}):
        with monkeypatch.context() as patch:
            together = sample(host, patched, given, **sampling)
            one_by_one(loaded, patch)
            torch.testing.assert_close(sample(host, patched, given, **sampling), together, **CLOSE)
        assert (together - sample(host, loaded[0], given, **sampling)).abs().max() > 1e-3


def test_blocks_are_numbered_as_in_comfyuis_own_unet(host):
    """Of the layout that the `modelscope` preset shares with Stable Diffusion."""
    from comfy.ldm.modules.attention import SpatialTransformer
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.ops import disable_weight_init

    config, unet, layers = (host.module(f"dreamvideo_core.models.{name}") for name in ("config", "unet", "layers"))
    theirs = UNetModel(
        image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[2, 2, 2, 2],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1,
        channel_mult=(1, 2, 4, 4), num_head_channels=64, use_spatial_transformer=True, context_dim=1024, device="meta",
        operations=disable_weight_init,
    )  # fmt: skip
    parts = {"input": theirs.input_blocks, "middle": [theirs.middle_block], "output": theirs.output_blocks}
    blocks = [
        (part, number)
        for part, blocks in parts.items()
        for number, block in enumerate(blocks)
        if any(isinstance(layer, SpatialTransformer) for layer in block)
    ]
    ours = unet.UNet(config.PRESETS["modelscope"].unet, layers.Operations(device="meta"))
    assert ours.attention_blocks == blocks and len(blocks) == 16


def test_patches_without_a_place_change_nothing_and_are_named(host, loaded, conditioned, caplog):
    patched = loaded[0].clone()
    patched.set_model_input_block_patch(lambda hidden, options: hidden * 0)
    patched.set_model_attn1_replace(lambda query, key, value, options: value, "input", 40)
    patched.set_model_patch_replace(lambda args, options: args, "dit", "double_block", 1)
    with caplog.at_level(logging.INFO, "DreamVideo"):
        made = sample(host, patched, conditioned)
    for kind in ("input_block_patch", "attn1", "dit"):
        assert caplog.text.count(f"a patch of kind '{kind}' on the model; DreamVideo has no place for it: no effect") == 1
    torch.testing.assert_close(made, sample(host, loaded[0], conditioned), rtol=0, atol=0)


def test_patches_without_a_place_are_named_on_the_sampler(server: Server):
    graph = image_to_video("dreamvideo_two_sprites.png")
    graph["deep"] = node(
        "PatchModelAddDownscale", model=["model", 0], block_number=3, downscale_factor=2.0, start_percent=0.0,
        end_percent=0.35, downscale_after_skip=True, downscale_method="bicubic", upscale_method="bicubic",
    )  # fmt: skip
    graph["sampler"]["inputs"]["model"] = ["deep", 0]
    graph["stock"] = node(
        "KSampler", model=["deep", 0], positive=["retention", 0], negative=["retention", 1], latent_image=["retention", 2],
        seed=3, steps=1, cfg=2.0, sampler_name="ddim", scheduler="simple", denoise=1.0,
    )  # fmt: skip
    graph["show"] = node("PreviewImage", images=["frames", 0])
    graph["frames"] = node("VAEDecode", samples=["stock", 0], vae=["model", 2])
    execution = server.client.run(graph)
    words = "a patch of kind 'input_block_patch_after_skip' on the model; DreamVideo has no place for it: no effect"
    assert [words in line for line in execution.outputs["sampler"]["dreamvideo_remark"]] == [True]
    said = [event.data for event in execution.events if event.kind == "progress_text"]
    assert any(words in data["text"] and data["node"] == "stock" for data in said)
