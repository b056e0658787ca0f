"""What VideoChain takes for the same model: only what gives the same clip."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
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


def test_what_is_put_into_layers_cannot_be_told(identity, loaded):
    from comfy.patcher_extension import PatcherInjection

    injected = loaded[0].clone()
    injected.set_injections("test", [PatcherInjection(inject=lambda patcher: None, eject=lambda patcher: None)])
    with pytest.raises(identity.Unidentified, match="put into the model's layers"):
        identity.identify(injected)


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
