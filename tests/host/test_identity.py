"""What VideoChain takes for the same model: only what gives the same clip."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
from safetensors.torch import save_file
from sampling import sample


@pytest.fixture(scope="module")
def identity(host: InProcessComfyUI) -> ModuleType:
    return host.module("nodes.host.identity")


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


def discrete(host: InProcessComfyUI, model: Any, sampling: str, zsnr: bool = False) -> Any:
    return host.call("ModelSamplingDiscrete", model=model, sampling=sampling, zsnr=zsnr)[0]


def test_the_same_twice_is_the_same(host, identity, loaded):
    again = host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")
    assert identity.identify(*loaded[::2]) == identity.identify(*again[::2])
    first, second = (discrete(host, loaded[0], "v_prediction") for _ in range(2))
    assert identity.identify(first) == identity.identify(second) != identity.identify(loaded[0])


def test_what_the_model_predicts_belongs_to_it(host, identity, loaded):
    patched = [discrete(host, loaded[0], kind) for kind in ("eps", "v_prediction", "x0")]
    patched.append(discrete(host, loaded[0], "eps", zsnr=True))
    assert len({identity.identify(model) for model in patched}) == 4


def test_wrappers_belong_to_it(identity, loaded):
    def doubled(executor, *args, factor: float = 2.0, **kwargs):
        return executor(*args, **kwargs) * factor

    wrapped = loaded[0].clone()
    wrapped.add_wrapper_with_key("apply_model", "test", doubled)
    assert identity.identify(wrapped) != identity.identify(loaded[0])


def test_what_is_put_into_layers_is_known_in_this_process_alone(identity, loaded):
    from comfy.patcher_extension import PatcherInjection

    def injected(injection: PatcherInjection) -> Any:
        model = loaded[0].clone()
        model.set_injections("test", [injection])
        return model

    one, other = (PatcherInjection(inject=lambda patcher: None, eject=lambda patcher: None) for _ in range(2))
    first, second = identity.identify(injected(one)), identity.identify(injected(other))
    assert first == identity.identify(injected(one)) != second and "PatcherInjection" in first.foreign


def settings(node: type, changed: bool) -> dict[str, Any]:
    """The defaults of a node's inputs, or other values of all."""
    return {name: _setting(*kind, changed=changed) for name, kind in node.INPUT_TYPES()["required"].items()}


def _setting(kind: Any, options: dict | None = None, *, changed: bool) -> Any:
    options = options or {}
    if isinstance(kind, list) or kind == "COMBO":
        choices = kind if isinstance(kind, list) else options["options"]
        return choices[-1 if changed else 0]
    if kind == "BOOLEAN":
        return options["default"] ^ changed
    if kind in ("INT", "FLOAT"):
        step = (0.1 if kind == "FLOAT" else options.get("step", 1)) * changed
        return options["default"] + (step if options["default"] + step <= options.get("max", 1e9) else -step)
    if kind == "STRING":
        return "1, 2" if changed else options.get("default", "")
    return None  # a model, which the test gives


# Every node of ComfyUI 0.30.0 that takes a model and gives one.
WITH_SETTINGS = [
    "APG", "CFGNorm", "CFGOverride", "ContextWindowsManual", "EasyCache", "Epsilon Scaling", "FreSca", "FreeU", "FreeU_V2",
    "HyperTile", "LazyCache", "LTXVContextWindows", "MiniMaxH3SigmaShift", "ModelComputeDtype", "ModelMergeBlocks",
    "ModelMergeSimple", "ModelMergeSubtract", "ModelSamplingAuraFlow", "ModelSamplingContinuousEDM",
    "ModelSamplingContinuousV", "ModelSamplingDiscrete", "ModelSamplingFlux", "ModelSamplingLTXV", "ModelSamplingSD3",
    "ModelSamplingStableCascade", "NAGuidance", "PatchModelAddDownscale", "PerturbedAttentionGuidance", "RenormCFG",
    "RescaleCFG", "ScaleROPE", "SelfAttentionGuidance", "SkipLayerGuidanceDiT", "SkipLayerGuidanceDiTSimple",
    "SkipLayerGuidanceSD3", "TemporalScoreRescaling", "TomePatchModel", "TorchCompileModel", "UNetCrossAttentionMultiply",
    "UNetSelfAttentionMultiply", "UNetTemporalAttentionMultiply", "VideoLinearCFGGuidance", "VideoTriangleCFGGuidance",
    "WanContextWindowsManual",
]  # fmt: skip
WITHOUT_SETTINGS = ["CFGZeroStar", "DifferentialDiffusion", "FluxKVCache", "Mahiro", "ModelMergeAdd", "TCFG"]
WITHOUT_EFFECT = [
    "ChromaRadianceOptions",
    "MultiGPU_WorkUnits",
    "SelectModelDevice",
    "wanBlockSwap",
]  # by their defaults, on one device
OF_OTHER_MODELS = [  # they want patches, audio or sampling that no model of ours has
    "ARVideoI2V", "AnimaLLLiteApply", "HiDreamO1PatchSeamSmoothing", "LTXVReferenceAudio", "LoraModelLoader",
    "ModelNoiseScale", "QwenImageDiffsynthControlnet", "SUPIRApply", "TripoSplatSamplingPreview", "USOStyleReference",
    "WanInfiniteTalkToVideo", "WanUni3CControlnetApply", "ZImageFunControlnet",
]  # fmt: skip
ELSEWHERE = [
    "HypernetworkLoader", "LatentApplyOperationCFG", "LoraLoader", "LoraLoaderBypass", "LoraLoaderBypassModelOnly",
    "LoraLoaderModelOnly", "PerpNeg",
]  # fmt: skip


def apply(host: InProcessComfyUI, name: str, loaded: tuple, changed: bool = False) -> Any:
    models = {"model": loaded[0], "model1": loaded[0], "model2": discrete(host, loaded[0], "x0")}
    inputs = settings(host.nodes[name], changed)
    return host.call(name, **{key: models.get(key, value) for key, value in inputs.items()})[0]


def test_every_node_that_patches_models_is_known_here(host):
    def takes_and_gives_a_model(node: type) -> bool:
        inputs = node.INPUT_TYPES().get("required", {})
        return "MODEL" in node.RETURN_TYPES and any(kind[0] == "MODEL" for kind in inputs.values())

    stock = {name for name, node in host.nodes.items() if takes_and_gives_a_model(node)}
    merges = {name for name in stock if "model_merging_model_specific" in host.nodes[name].__module__}  # as ModelMergeBlocks
    assert stock - merges == {*WITH_SETTINGS, *WITHOUT_SETTINGS, *WITHOUT_EFFECT, *OF_OTHER_MODELS, *ELSEWHERE}


@pytest.mark.parametrize("name", [*WITH_SETTINGS, *WITHOUT_SETTINGS])
def test_models_that_a_stock_node_patches_are_known_in_any_process(host, identity, loaded, name):
    first, again = (identity.identify(apply(host, name, loaded)) for _ in range(2))
    assert first == again and first.foreign is None
    assert first.key != identity.identify(loaded[0]).key


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_other_settings_make_another_model(host, identity, loaded, name):
    one, other = (apply(host, name, loaded, changed) for changed in (False, True))
    assert identity.identify(one).key != identity.identify(other).key


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_node_without_effect_makes_the_same_model(host, identity, loaded, name):
    assert identity.identify(apply(host, name, loaded)) == identity.identify(loaded[0])


def test_what_a_patch_was_given_belongs_to_it(host, identity, loaded):
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=text)[0] for text in ("", "a red circle")]
    negatives = [host.call("PerpNeg", model=loaded[0], empty_conditioning=text, neg_scale=1.0)[0] for text in texts]
    operations = [host.call("LatentOperationSharpen", sharpen_radius=9, sigma=1.0, alpha=a)[0] for a in (0.1, 0.1, 0.2)]
    sharpened = [host.call("LatentApplyOperationCFG", model=loaded[0], operation=o)[0] for o in operations]
    keys = [identity.identify(model) for model in (*negatives, *sharpened)]
    again = host.call("PerpNeg", model=loaded[0], empty_conditioning=texts[0], neg_scale=1.0)[0]
    assert keys[2] == keys[3] and len(set(keys)) == 4 and not any(key.foreign for key in keys)
    assert identity.identify(again) == keys[0]


def test_devices_that_lack_an_operation_do_not_belong_to_it(host, identity, loaded):
    model = apply(host, "FreeU", loaded)
    before = identity.identify(model)
    (patch,) = model.model_options["transformer_options"]["patches"]["output_block_patch"]
    inspect.getclosurevars(patch).nonlocals["on_cpu_devices"][torch.device("mps")] = True
    assert identity.identify(model) == before


def test_loras_belong_to_it(host, identity, loaded):
    name = next(name for name in loaded[0].model.state_dict() if name.endswith("attn1.to_q.weight"))
    rows, columns = loaded[0].model.state_dict()[name].shape
    folder = host.base.models / "loras"
    folder.mkdir(exist_ok=True)
    for number in range(2):
        generator = torch.Generator().manual_seed(number)
        halves = {"up": (rows, 2), "down": (2, columns)}
        save_file(
            {f"{name[:-7]}.lora_{half}.weight": torch.randn(shape, generator=generator) for half, shape in halves.items()},
            folder / f"identity{number}.safetensors",
        )

    def with_lora(node: str, number: int, strength: float) -> Any:
        lora = f"identity{number}.safetensors"
        return host.call(node, model=loaded[0], lora_name=lora, strength_model=strength)[0]

    def keys(node: str) -> list:
        return [identity.identify(with_lora(node, *lora)) for lora in ((0, 1.0), (0, 1.0), (1, 1.0), (0, 0.5))]

    same, again, *others = keys("LoraLoaderModelOnly")
    assert same == again and len({same, *others, identity.identify(loaded[0])}) == 4
    # In bypass mode a LoRA lies in the layers, where another process cannot tell what it is.
    bypassed = keys("LoraLoaderBypassModelOnly")
    assert len(set(bypassed)) == 4 and all("PatcherInjection" in key.foreign for key in bypassed)


def test_functions_of_one_name_and_other_code_are_not_the_same(identity, loaded):
    def with_post_cfg(function: Callable) -> Any:
        model = loaded[0].clone()
        model.set_model_sampler_post_cfg_function(function)
        return model

    dark, bright = (lambda args: args["denoised"] * 0.5), (lambda args: args["denoised"] * 1.5)
    first, again, second = (identity.identify(with_post_cfg(function)) for function in (dark, dark, bright))
    assert first == again and first.key != second.key
    assert "<lambda> of test_identity" in first.foreign


def test_stock_functions_are_told_apart_by_code_defaults_and_what_they_enclose(host, identity):
    """Written into a file of ComfyUI's own, as its next version might have them."""
    source = """
def made(a, b=1):
    def patch(args, *, c=2):
        return [args * a for _ in range({number})]
    return patch
"""
    from comfy_extras import nodes_apg

    def function(number: int, a: Any, c: int = 2) -> Callable:
        space = {"__name__": nodes_apg.__name__}
        exec(compile(source.replace("{number}", str(number)), nodes_apg.__file__, "exec"), space)
        patch = space["made"](a)
        patch.__kwdefaults__ = {"c": c}
        return patch

    made = [function(1, 2), function(1, 2), function(3, 2), function(1, 4), function(1, 2, c=5), function(1, {"deep": [[4]]})]
    keys = [identity.identify(patch) for patch in made]
    assert keys[0] == keys[1] and len(set(keys)) == 5 and not any(key.foreign for key in keys)


def test_a_function_that_wears_a_stock_name_is_not_stock(identity):
    from comfy_extras.nodes_freelunch import Fourier_filter

    @functools.wraps(Fourier_filter)
    def worn(*args):
        return args

    assert identity.identify(worn).foreign


def test_numbers_of_objects_are_never_used_again(identity):
    keys = {identity.identify(lambda: None).key for _ in range(50)}  # many of them lie at one address, one after the other
    assert len(keys) == 50 and len(identity._numbered) < 40


def test_what_holds_itself_has_an_end(identity):
    loop: list = [1]
    loop.append(loop)
    other: list = [2]
    other.append(other)
    assert identity.identify(loop) == identity.identify(loop) != identity.identify(other)
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(identity.Unidentified, match="lies too deep"):
        identity.identify(deep)


@pytest.mark.parametrize(
    "name", ["APG", "SelfAttentionGuidance", "FreeU_V2", "HyperTile", "EasyCache", "LazyCache", "TomePatchModel"]
)
def test_sampling_leaves_what_a_patch_is_known_by(host, identity, loaded, name):
    """APG keeps a running mean and the last noise level in variables of its own."""
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=text)[0] for text in ("the red circle moves left", "")]
    conditioned = host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=torch.rand(1, SIZE, SIZE, 3), width=SIZE, height=SIZE,
        frames=FRAMES, batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    model = apply(host, name, loaded, changed=name == "APG")
    before = identity.identify(model)
    try:
        sample(host, model, conditioned)
    except Exception:
        if (
            name != "SelfAttentionGuidance"
        ):  # it may want attention that this U-Net does not give: then it has begun all the same
            raise
    assert identity.identify(model) == before


def test_sampling_leaves_it_as_it_was(host, identity, loaded):
    texts = [host.call("CLIPTextEncode", clip=loaded[1], text=text)[0] for text in ("the red circle moves left", "")]
    conditioned = host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=torch.rand(1, SIZE, SIZE, 3), width=SIZE, height=SIZE,
        frames=FRAMES + 4, batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    (windowed,) = host.call(
        "ContextWindowsManual", model=loaded[0], context_length=FRAMES, context_overlap=2, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False,
    )  # fmt: skip
    patched = discrete(host, windowed, "v_prediction")
    before = identity.identify(patched)
    sample(host, patched, conditioned)
    assert identity.identify(patched) == before != identity.identify(discrete(host, loaded[0], "v_prediction"))
