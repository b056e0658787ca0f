"""The MODEL as ComfyUI's own objects see it: patches, LoRAs, memory modes, sharing. In the test process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
from safetensors import safe_open
from safetensors.torch import save_file
from sampling import sample
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


@pytest.fixture(scope="module")
def conditioned(host: InProcessComfyUI, loaded: tuple) -> tuple:
    """(positive, negative, latent) of two clips with a picture."""
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=t)[0] for t in ("the red circle moves left", "")]
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=picture, width=SIZE, height=SIZE, frames=FRAMES,
        batch_size=2, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip


class Counter:
    """Counts rows and calls of the U-Net's encoder, branch and decoder."""

    def __init__(self, unet: Any, monkeypatch: pytest.MonkeyPatch):
        self.rows: dict[str, list[int]] = {"encode": [], "decode": [], "retain": []}
        encode, decode, retain = unet.encode, unet.decode, unet.retention.forward

        def counted_encode(latents, timesteps, *args):
            self.rows["encode"].append(len(timesteps))
            return encode(latents, timesteps, *args)

        def counted_decode(encoding, *args):
            self.rows["decode"].append(len(encoding.temb))
            return decode(encoding, *args)

        def counted_retain(latents, maps, *args):
            self.rows["retain"].append(len(maps))
            return retain(latents, maps, *args)

        monkeypatch.setattr(unet, "encode", counted_encode)
        monkeypatch.setattr(unet, "decode", counted_decode)
        monkeypatch.setattr(unet.retention, "forward", counted_retain)


def test_one_call_a_step_and_the_encoder_once_per_text(host, loaded, conditioned, monkeypatch):
    counter = Counter(loaded[0].model.diffusion_model, monkeypatch)
    sample(host, loaded[0], conditioned, steps=1)
    # Two clips, three evaluations of two texts.
    assert counter.rows == {"encode": [4], "decode": [6], "retain": [6]}


def test_splitting_the_evaluations_changes_nothing(host, loaded, conditioned, monkeypatch):
    whole = sample(host, loaded[0], conditioned)
    counter = Counter(loaded[0].model.diffusion_model, monkeypatch)
    monkeypatch.setattr(loaded[0].model, "memory_required", lambda *args, **kwargs: 1e30)
    split = sample(host, loaded[0], conditioned)
    assert counter.rows["decode"] == [2] * 6
    assert sum(counter.rows["encode"]) == 2 * 4
    torch.testing.assert_close(split, whole, rtol=1e-4, atol=1e-4)


def test_the_branch_runs_in_every_second_step(host, loaded, conditioned, monkeypatch):
    exact = sample(host, loaded[0], conditioned, steps=5)
    counter = Counter(loaded[0].model.diffusion_model, monkeypatch)
    reused = sample(host, loaded[0], conditioned, steps=5, retention_every=2)
    assert counter.rows["retain"] == [6, 6, 6] and counter.rows["decode"] == [6] * 5
    assert 1e-3 < (reused - exact).abs().max() < 2
    monkeypatch.setattr(loaded[0].model, "memory_required", lambda *args, **kwargs: 1e30)
    split = sample(host, loaded[0], conditioned, steps=5, retention_every=2)
    torch.testing.assert_close(split, reused, rtol=1e-3, atol=1e-3)
    assert counter.rows["retain"] == [6, 6, 6] + [2] * 9


@pytest.mark.parametrize(("scales", "rows"), [((1.0, 1.0), 2), ((1.5, 1.5), 4), ((0.0, 0.0), 2), ((2.0, 1.0), 6)])
def test_evaluations_of_no_weight_are_not_run(host, loaded, conditioned, monkeypatch, scales, rows):
    counter = Counter(loaded[0].model.diffusion_model, monkeypatch)
    sample(host, loaded[0], conditioned, steps=1, text_scale=scales[0], image_scale=scales[1])
    assert sum(counter.rows["decode"]) == rows


def test_the_image_stem_runs_once_per_run(host, loaded, conditioned, monkeypatch):
    calls = []
    retention = loaded[0].model.diffusion_model.retention
    forward = retention.conv_s.forward
    monkeypatch.setattr(retention.conv_s, "forward", lambda image: calls.append(len(image)) or forward(image))
    sample(host, loaded[0], conditioned, steps=3)
    assert len(calls) == 1


@pytest.mark.parametrize("scales", [(2.0, 1.5), (0.0, 1.5), (1.5, 0.0)])
@pytest.mark.parametrize("order", ["text_first", "image_first"])
def test_the_guider_is_the_sum_written_out(host, loaded, conditioned, order, scales):
    """One step of ddim with guidance against the same step composed from single evaluations."""
    s_t, s_i = scales
    positive, negative, latent = conditioned
    without = [[[t, {k: v for k, v in o.items() if not k.startswith("retention")}] for t, o in c] for c in (positive, negative)]

    def single(conditioning: list) -> torch.Tensor:
        return sample(host, loaded[0], (conditioning, conditioning, latent), steps=1, text_scale=1.0, image_scale=1.0)

    f11, f10, f01, f00 = single(positive), single(without[0]), single(negative), single(without[1])
    expected = {
        "text_first": f00 + s_t * (f10 - f00) + s_i * (f11 - f10),
        "image_first": f00 + s_i * (f01 - f00) + s_t * (f11 - f01),
    }[order]
    guided = sample(host, loaded[0], conditioned, steps=1, text_scale=s_t, image_scale=s_i, order=order)
    torch.testing.assert_close(guided, expected, rtol=1e-3, atol=1e-3)


def test_a_model_loads_where_comfyui_makes_weights_late(host, conditioned, monkeypatch):
    """On NVIDIA cards, with its dynamic memory, ComfyUI's linear layers have no weights before a file's are put there."""
    import comfy.memory_management
    import comfy.ops

    early = _in_half_precision(host)
    with monkeypatch.context() as patch:
        patch.setattr(comfy.memory_management, "aimdo_enabled", True)
        assert comfy.ops.disable_weight_init.Linear(1, 1).weight is None
        late = _in_half_precision(host)
    torch.testing.assert_close(sample(host, late, conditioned), sample(host, early, conditioned))


def _in_half_precision(host: InProcessComfyUI) -> Any:
    """The shipped MODEL with weights as its file has them: those that come late are cast by a GPU's patcher alone."""
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="fp16")[0]


def test_kernels_are_lent_the_weights_that_comfyuis_own_layers_use(host, loaded, monkeypatch):
    """Cast to the precision of the activations, with patches that are applied while a layer runs."""
    lend = host.module("nodes.host.unet").lend
    layer = loaded[0].model.diffusion_model.conv_norm_out
    x = torch.randn(1, layer.num_channels, 4, 4, dtype=torch.bfloat16)
    monkeypatch.setattr(layer, "comfy_cast_weights", True)
    monkeypatch.setattr(layer, "weight_function", [lambda weight: 2 * weight])
    with lend(layer, x) as (weight, bias):
        made = torch.nn.functional.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    assert weight.dtype == bias.dtype == x.dtype
    assert torch.equal(made, layer(x))
    torch.testing.assert_close(weight, 2 * layer.weight.to(x.dtype))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("unet.conv_in.bias"), "1 missing, 'conv_in.bias' for one"),
        (
            lambda state: state.update({"retention.colour": torch.ones(1)}),
            "'retention' do not fit the configuration: 1 unknown, 'colour' for one",
        ),
        (lambda state: state.update({"unet.conv_in.bias": torch.ones(3)}), r"'conv_in.bias' has shape \(3,\) and not"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_that_do_not_fit_are_refused(host, change, words):
    shipped = host.module("dreamvideo_core.sampling.pipeline").SHIPPED
    with safe_open(shipped, "pt") as file:
        config, state = file.metadata()["dreamvideo"], {name: file.get_tensor(name) for name in file.keys()}
    change(state)
    folder = host.base.models / "dreamvideo"
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "unfit.safetensors", {"dreamvideo": config})
    with pytest.raises(ValueError, match=words):
        host.call("LoadDreamVideo", checkpoint="unfit.safetensors", weight_dtype="default")


def test_patches_act_on_the_whole_result(host, loaded, conditioned):
    plain = sample(host, loaded[0], conditioned)
    (rescaled,) = host.call("RescaleCFG", model=loaded[0], multiplier=0.7)
    assert (sample(host, rescaled, conditioned) - plain).abs().max() > 1e-3

    patched = loaded[0].clone()
    patched.set_model_sampler_post_cfg_function(lambda args: args["denoised"] * 0)
    assert sample(host, patched, conditioned).abs().max() < 1e-4
    torch.testing.assert_close(sample(host, loaded[0], conditioned), plain, rtol=0, atol=0)


def kohya(path: str) -> tuple[str, str]:
    key = "lora_unet_" + path.replace(".", "_")
    return f"{key}.lora_down.weight", f"{key}.lora_up.weight"


def peft(path: str) -> tuple[str, str]:
    return f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"


def diffusers(path: str) -> tuple[str, str]:
    return f"unet.{path}.lora.down.weight", f"unet.{path}.lora.up.weight"


def older_diffusers(path: str) -> tuple[str, str]:
    block, layer = path.rsplit(".to_", 1)
    return tuple(f"unet.{block}.processor.to_{layer.removesuffix('.0')}_lora.{way}.weight" for way in ("down", "up"))


ATTENTIONS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "up_blocks.0.temp_attentions.0.attn.to_v",
    "retention.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
)
CONVOLUTIONS = ("down_blocks.0.resnets.0.conv1", "mid_block.temp_convs.0.conv2.3", "retention.zero_convs.1")


@pytest.mark.parametrize(
    ("names", "paths"),
    [(names, ATTENTIONS + CONVOLUTIONS) for names in (kohya, peft, diffusers)] + [(older_diffusers, ATTENTIONS)],
)
def test_a_lora_applies_and_comes_off_exactly(host, loaded, conditioned, names, paths):
    plain = sample(host, loaded[0], conditioned)
    generator = torch.Generator().manual_seed(0)
    lora = {}
    for path in paths:
        out, *inner = loaded[0].model.diffusion_model.get_parameter(f"{path}.weight").shape
        down, up = names(path)
        lora[down] = torch.randn(2, *inner, generator=generator)
        lora[up] = torch.randn(out, 2, *[1] * (len(inner) - 1), generator=generator)
    folder = host.base.models / "loras"
    folder.mkdir(exist_ok=True)
    save_file(lora, folder / "test.safetensors")
    (with_lora,) = host.call("LoraLoaderModelOnly", model=loaded[0], lora_name="test.safetensors", strength_model=1.0)
    assert len(with_lora.patches) == len(paths)
    assert (sample(host, with_lora, conditioned) - plain).abs().max() > 1e-3
    (none,) = host.call("LoraLoaderModelOnly", model=loaded[0], lora_name="test.safetensors", strength_model=0.0)
    torch.testing.assert_close(sample(host, none, conditioned), plain, rtol=0, atol=0)
    torch.testing.assert_close(sample(host, loaded[0], conditioned), plain, rtol=0, atol=0)


def test_a_low_vram_load_gives_the_same(host, loaded, conditioned):
    plain = sample(host, loaded[0], conditioned)
    loader, path = host.module("nodes.host.loader"), host.module("nodes.host.files").checkpoint_path(SHIPPED)
    patcher = loader.load_patcher(loader.Source(path), "default", disable_dynamic=True)
    import comfy.model_management

    comfy.model_management.load_models_gpu([patcher])
    patcher.detach()
    patcher.load(patcher.load_device, lowvram_model_memory=1)
    assert any(getattr(m, "comfy_cast_weights", False) for m in patcher.model.diffusion_model.modules())
    torch.testing.assert_close(sample(host, patcher, conditioned), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight_dtype", ["fp16", "bf16", "fp8_e4m3fn"])
def test_weights_in_less_precision(host, loaded, conditioned, weight_dtype):
    plain = sample(host, loaded[0], conditioned)
    model = host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype=weight_dtype)[0]
    low = sample(host, model, conditioned)
    assert low.isfinite().all()
    assert (low - plain).norm() / plain.norm() < 0.2


def test_a_name_in_both_folders_stands_for_two_files(host):
    files = host.module("nodes.host.files")
    for folder in ("dreamvideo", "checkpoints"):
        path = host.base.root / "models" / folder / "twin.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = [name for name in files.checkpoint_names() if name.startswith("twin")]
    assert names == ["twin.safetensors", "twin.safetensors (checkpoints)"]
    assert [files.checkpoint_path(name).parent.name for name in names] == ["dreamvideo", "checkpoints"]


def test_the_text_encoder_is_that_of_the_core(host, loaded):
    core = host.module("dreamvideo_core.sampling.pipeline").Pipeline.load()
    text = "a yellow star goes to the right"
    ours = core.text_encoder.encode([text])
    theirs = host.call("CLIPTextEncode", clip=loaded[1], text=text)[0][0][0]
    torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "guidance", [{}, {"rescale": 0.7}, {"guidance_start": 0.2, "guidance_end": 0.5}, {"retention_every": 2}]
)
def test_the_graph_gives_what_the_pipeline_gives(host, loaded, guidance):
    """Same noise, same steps: the nodes and `dreamvideo generate` are one model."""
    core = host.module("dreamvideo_core.sampling.pipeline").Pipeline.load()
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1)) / 4
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=t)[0] for t in ("a green ring grows", "")]
    conditioned = host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=picture, width=SIZE, height=SIZE, frames=FRAMES,
        batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0, vae=loaded[2],
    )  # fmt: skip
    samples = sample(host, loaded[0], conditioned, steps=4, **guidance)
    (frames,) = host.call("VAEDecode", vae=loaded[2], samples={"samples": samples})
    ours = core(
        "a green ring grows", picture.movedim(-1, 1) * 2 - 1, num_frames=FRAMES, steps=4, text_scale=2.0, image_scale=1.5,
        seed=3, **guidance,
    )  # fmt: skip
    torch.testing.assert_close(frames, (ours[0].movedim(1, -1) + 1) / 2, rtol=0, atol=2e-2)


def test_with_a_vae_the_latent_is_the_mean_of_each_picture(host, loaded):
    text = host.call("CLIPTextEncode", clip=loaded[1], text="")[0]
    bright = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(1))
    pictures = torch.cat([bright, bright / 4])
    inputs = {
        "positive": text, "negative": text, "image": pictures, "width": SIZE, "height": SIZE, "frames": FRAMES, "batch_size": 2,
        "fit": "crop", "strength": 1.0, "start": 0.0, "end": 1.0,
    }  # fmt: skip
    samples = host.call("RetentionEncode", vae=loaded[2], **inputs)[2]["samples"]
    with torch.inference_mode():
        means = loaded[2].encode(pictures).mean((2, 3))
    torch.testing.assert_close(samples, means.repeat_interleave(FRAMES, 0)[..., None, None].expand_as(samples))
    for others in ({}, {"vae": loaded[2], "strength": 0.0}, {"vae": loaded[2], "start": 0.5}):
        assert not host.call("RetentionEncode", **{**inputs, **others})[2]["samples"].any()
    (pixels,) = host.call("VAELoader", vae_name="pixel_space")
    with pytest.raises(ValueError, match=r"vae makes latents of shape .*; allowed: \(pictures, 4, height, width\)"):
        host.call("RetentionEncode", vae=pixels, **inputs)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((1, 0, 8, 3), "at least one pixel"), ((1, 8, 8, 2), "1, 3 or 4 channels"), ((8, 8, 3), "shape")],
)
def test_what_is_no_picture_is_refused(host, conditioned, shape, words):
    with pytest.raises(ValueError, match=words):
        host.module("nodes.images").from_comfy(torch.zeros(shape))


def test_pictures_of_all_kinds(host):
    from_comfy = host.module("nodes.images").from_comfy
    with pytest.raises(ValueError, match="NaN"):
        from_comfy(torch.full((1, 8, 8, 3), float("nan")))
    grey = from_comfy(torch.full((1, 8, 8, 1), 0.25))
    torch.testing.assert_close(grey, torch.full((1, 3, 8, 8), -0.5))
    clear = from_comfy(torch.zeros(2, 8, 8, 4))
    torch.testing.assert_close(clear, torch.ones(2, 3, 8, 8))


def test_freeu_acts_on_the_skips(host, loaded, conditioned):
    plain = sample(host, loaded[0], conditioned)
    (neutral,) = host.call("FreeU_V2", model=loaded[0], b1=1.0, b2=1.0, s1=1.0, s2=1.0)
    torch.testing.assert_close(sample(host, neutral, conditioned), plain, rtol=1e-3, atol=1e-3)
    (strong,) = host.call("FreeU_V2", model=loaded[0], b1=1.4, b2=1.6, s1=0.9, s2=0.2)
    assert (sample(host, strong, conditioned) - plain).abs().max() > 1e-2
    torch.testing.assert_close(sample(host, loaded[0], conditioned), plain, rtol=0, atol=0)


class WithoutFloat64(TorchDispatchMode):
    """What some devices lack; those here have it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves((args, kwargs, made))):
            raise TypeError(f"{function} is asked for float64")
        return made


def test_the_network_needs_no_float64(host, loaded, conditioned, monkeypatch):
    forward, calls = loaded[0].model.diffusion_model.forward, []

    def without(*args, **kwargs):
        with WithoutFloat64():
            calls.append(forward(*args, **kwargs))
        return calls[-1]

    monkeypatch.setattr(loaded[0].model.diffusion_model, "forward", without)
    sample(host, loaded[0], conditioned, steps=3, retention_every=2, guidance_end=0.5, rescale=0.5)
    assert len(calls) == 3


def test_a_controlnet_is_refused_in_words(host, loaded, conditioned):
    import comfy.controlnet
    import node_helpers

    positive = node_helpers.conditioning_set_values(conditioned[0], {"control": comfy.controlnet.ControlBase()})
    with pytest.raises(ValueError, match="a ControlNet is attached to the conditioning"):
        sample(host, loaded[0], (positive, *conditioned[1:]))


def test_a_scheduled_lora_acts_while_its_keyframe_lasts(host, loaded, conditioned):
    """A hook that is on all the time equals a plain LoRA; one that is never on equals none."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    generator = torch.Generator().manual_seed(1)
    lora = {
        f"diffusion_model.{name}.lora_A.weight": torch.randn(4, 128, generator=generator),
        f"diffusion_model.{name}.lora_B.weight": torch.randn(128, 4, generator=generator),
    }
    folder = host.base.root / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(lora, folder / "hooked.safetensors")
    (with_lora,) = host.call("LoraLoaderModelOnly", model=loaded[0], lora_name="hooked.safetensors", strength_model=1.0)
    expected = sample(host, with_lora, conditioned)
    plain = sample(host, loaded[0], conditioned)
    assert (expected - plain).abs().max() > 1e-3

    def hooked(strength: float) -> torch.Tensor:
        (hooks,) = host.call(
            "CreateHookLora", lora_name="hooked.safetensors", strength_model=strength, strength_clip=0.0, prev_hooks=None
        )
        positive, negative = host.call(
            "PairConditioningSetProperties", positive_NEW=conditioned[0], negative_NEW=conditioned[1], strength=1.0,
            set_cond_area="default", hooks=hooks,
        )  # fmt: skip
        return sample(host, loaded[0], (positive, negative, conditioned[2]))

    torch.testing.assert_close(hooked(1.0), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(hooked(0.0), plain, rtol=1e-3, atol=1e-3)


def test_patches_write_into_copies(host):
    """Encodings are shared by evaluations, and a patch such as FreeU's writes into what it is given."""

    def write(hidden: torch.Tensor, skip: torch.Tensor, options: dict) -> tuple[torch.Tensor, torch.Tensor]:
        return hidden.mul_(2), skip.add_(1)

    merge = host.module("nodes.host.patches").patched_merge({"patches": {"output_block_patch": [write]}})
    hidden, skip = torch.ones(1, 2, 3, 3), torch.ones(1, 2, 3, 3)
    assert (merge(hidden, skip) == 2).all()
    assert (hidden == 1).all() and (skip == 1).all()


def test_areas_have_encodings_of_their_own(host, loaded, conditioned):
    """Two halves with sentences of their own over a negative without an area, with work shared and with none."""
    half = SIZE // 2
    (left,) = host.call("ConditioningSetArea", conditioning=conditioned[0], width=half, height=SIZE, x=0, y=0, strength=1.0)
    (right,) = host.call("ConditioningSetArea", conditioning=conditioned[1], width=half, height=SIZE, x=half, y=0, strength=1.0)
    halves = ([*left, *right], *conditioned[1:])
    alone = loaded[0].clone()
    sharing = host.module("nodes.host.sharing")
    alone.remove_wrappers_with_key("outer_sample", sharing.RUN_KEY)
    alone.remove_wrappers_with_key("calc_cond_batch", sharing.STEP_KEY)
    for scales in ({"text_scale": 1.5, "image_scale": 1.5}, {"text_scale": 2.0, "image_scale": 1.0}):
        shared = sample(host, loaded[0], halves, **scales)
        torch.testing.assert_close(shared, sample(host, alone, halves, **scales), rtol=1e-4, atol=1e-4)
    assert (shared - sample(host, loaded[0], conditioned, **scales)).abs().max() > 1e-2


def test_the_clip_and_the_vae_can_be_loaded_anew(loaded):
    """As hooks on the CLIP and nodes that choose a device do."""
    for part, weights in ((loaded[1], loaded[1].cond_stage_model), (loaded[2], loaded[2].first_stage_model)):
        load, arguments = part.patcher.cached_patcher_init
        anew = load(*arguments, disable_dynamic=True).model.state_dict()
        old = {name: tensor for name, tensor in weights.state_dict().items() if "text_projection" not in name}  # never used
        assert all(torch.equal(anew[name], tensor) for name, tensor in old.items())


def test_context_windows_go_over_a_long_clip(host, loaded):
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=t)[0] for t in ("the red circle moves left", "")]
    picture = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    long = host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=picture, width=SIZE, height=SIZE, frames=12,
        batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    (windowed,) = host.call(
        "ContextWindowsManual", model=loaded[0], context_length=8, context_overlap=4, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False,
    )  # fmt: skip
    samples = sample(host, windowed, long)
    assert samples.shape[0] == 12 and samples.isfinite().all()
    assert (samples - sample(host, loaded[0], long)).abs().max() > 1e-3
