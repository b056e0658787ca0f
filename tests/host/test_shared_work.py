"""What evaluations share in ComfyUI must be theirs: other nodes may call the model as often, and with what, they like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE
from sampling import sample

Wrapper = Callable[[Callable, dict], torch.Tensor]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # batches of other sizes are rounded otherwise; what is mixed up differs by 10


@pytest.fixture(scope="module")
def loaded(host: InProcessComfyUI) -> tuple:
    return host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")


def encode(host: InProcessComfyUI, clip: Any, clips: int, frames: int = FRAMES) -> tuple:
    """(positive, negative, latent) with a picture for each clip."""
    texts = [host.call("CLIPTextEncode", clip=clip, text=t)[0] for t in ("the red circle moves left", "")]
    pictures = torch.rand(clips, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    return host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=pictures, width=SIZE, height=SIZE, frames=frames,
        batch_size=clips, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def conditioned(host: InProcessComfyUI, loaded: tuple) -> tuple:
    return encode(host, loaded[1], clips=2)


def wrapped(model: Any, wrapper: Wrapper) -> Any:
    patched = model.clone()
    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def calls(change: Callable[[dict], dict]) -> Wrapper:
    """Calls the model with something changed, throws the result away, and calls it as it should be."""

    def wrapper(apply_model: Callable, given: dict) -> torch.Tensor:
        changed = change({"input": given["input"], "timestep": given["timestep"], "c": dict(given["c"])})
        apply_model(changed["input"], changed["timestep"], **changed["c"])
        return apply_model(given["input"], given["timestep"], **given["c"])

    return wrapper


def of_c(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict], dict]:
    return lambda given: {**given, "c": {**given["c"], name: change(given["c"][name])}}


def one_row(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:-FRAMES], torch.ones_like(x[-FRAMES:])])


CHANGES = {
    "latents": lambda given: {**given, "input": given["input"] * 0 + 1},
    "one row": lambda given: {**given, "input": one_row(given["input"])},
    "clips swapped": lambda given: {**given, "input": given["input"].roll(FRAMES, 0)},
    "timestep": lambda given: {**given, "timestep": given["timestep"] / 2},
    "text": of_c("c_crossattn", lambda text: text / 2),
    "text of one row": of_c("c_crossattn", lambda text: torch.cat([text[:1] * 2, text[1:]])),
    "image": of_c("retention_image", lambda image: -image),
    "the same again": lambda given: given,
}


@pytest.mark.parametrize("split", [False, True], ids=["one call", "split calls"])
@pytest.mark.parametrize("sampling", [{}, {"retention_every": 2, "steps": 4}], ids=["every step", "every second step"])
@pytest.mark.parametrize("name", CHANGES)
def test_calls_with_other_values_leave_no_trace(host, loaded, conditioned, monkeypatch, name, sampling, split):
    plain = sample(host, loaded[0], conditioned, **sampling)
    if split:
        monkeypatch.setattr(loaded[0].model, "memory_required", lambda *args, **kwargs: 1e30)
    made = sample(host, wrapped(loaded[0], calls(CHANGES[name])), conditioned, **sampling)
    torch.testing.assert_close(made, plain, **TOLERANCE)


def nothing_shared(host: InProcessComfyUI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        host.module("nodes.host.sharing").HostKept, "get", lambda kept, rows, make, most=None: make(list(range(len(rows))))
    )


@pytest.mark.parametrize("name", CHANGES)
def test_results_of_other_values_are_as_with_nothing_shared(host, loaded, conditioned, monkeypatch, name):
    def wrapper(apply_model: Callable, given: dict) -> torch.Tensor:
        changed = CHANGES[name](given)
        true = apply_model(given["input"], given["timestep"], **given["c"])
        return (true + apply_model(changed["input"], changed["timestep"], **changed["c"])) / 2

    shared = sample(host, wrapped(loaded[0], wrapper), conditioned)
    nothing_shared(host, monkeypatch)
    torch.testing.assert_close(shared, sample(host, wrapped(loaded[0], wrapper), conditioned), **TOLERANCE)


def test_wrappers_deeper_in_the_model_may_change_single_rows(host, loaded, conditioned, monkeypatch):
    """Those of APPLY_MODEL and DIFFUSION_MODEL, one after the other."""
    patched = loaded[0].clone()
    patched.add_wrapper("apply_model", lambda executor, x, *args, **kwargs: executor(one_row(x), *args, **kwargs))

    def darker_half(executor, x, timesteps, context, *args, **kwargs):
        return executor(x, timesteps, torch.cat([context[:1], context[1:] / 2]), *args, **kwargs)

    patched.add_wrapper("diffusion_model", darker_half)
    shared = sample(host, patched, conditioned)
    nothing_shared(host, monkeypatch)
    torch.testing.assert_close(shared, sample(host, patched, conditioned), **TOLERANCE)


def one_condition_at_a_time(apply_model: Callable, given: dict) -> torch.Tensor:
    """As nodes do that know no lists: every tensor is cut, and nothing else."""
    count = len(given["cond_or_uncond"])

    def part(value: Any, number: int) -> Any:
        is_cut = isinstance(value, torch.Tensor) and value.ndim and len(value) % count == 0
        return value.chunk(count)[number] if is_cut else value

    calls = [{**given, "c": {name: part(value, number) for name, value in given["c"].items()}} for number in range(count)]
    return torch.cat([apply_model(part(c["input"], n), part(c["timestep"], n), **c["c"]) for n, c in enumerate(calls)])


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("sampling", [{}, {"retention_every": 2, "steps": 4}], ids=["every step", "every second step"])
def test_conditions_may_be_called_one_at_a_time(host, loaded, clips, sampling):
    given = encode(host, loaded[1], clips)
    made = sample(host, wrapped(loaded[0], one_condition_at_a_time), given, **sampling)
    torch.testing.assert_close(made, sample(host, loaded[0], given, **sampling), **TOLERANCE)


def test_conditions_that_cannot_be_told_apart_are_refused_in_words(host, loaded):
    positive, negative, latent = encode(host, loaded[1], clips=1)
    weaker = [[text, {**options, "retention_strength": 0.5}] for text, options in positive]
    with pytest.raises(ValueError, match="another node calls the model with 1 texts, but gives 3 entries of dreamvideo_rows"):
        sample(host, wrapped(loaded[0], one_condition_at_a_time), (weaker, negative, latent))


def test_the_same_latents_again_cost_no_encoding(host, loaded, conditioned, monkeypatch):
    unet, rows = loaded[0].model.diffusion_model, []
    encode = unet.encode
    monkeypatch.setattr(unet, "encode", lambda x, t, *args: rows.append(len(t)) or encode(x, t, *args))
    sample(host, wrapped(loaded[0], calls(CHANGES["the same again"])), conditioned, steps=1)
    assert rows == [4]


def test_a_step_keeps_no_more_encodings_than_it_has_evaluations(host, loaded, conditioned):
    kept = []

    def tiles(apply_model: Callable, given: dict) -> torch.Tensor:
        for offset in range(5):
            made = apply_model(given["input"] + offset, given["timestep"], **given["c"])
        kept.append(len(given["c"]["transformer_options"]["dreamvideo_step"].encodings._entries))
        return made

    sample(host, wrapped(loaded[0], tiles), conditioned)
    assert kept and max(kept) <= 6


@pytest.mark.parametrize("sampling", [{}, {"retention_every": 2, "steps": 4}], ids=["every step", "every second step"])
def test_context_windows_too(host, loaded, sampling):
    long = encode(host, loaded[1], clips=1, frames=12)
    (windowed,) = host.call(
        "ContextWindowsManual", model=loaded[0], context_length=8, context_overlap=4, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0, freenoise=False,
    )  # fmt: skip
    made = sample(host, wrapped(windowed, calls(CHANGES["latents"])), long, **sampling)
    torch.testing.assert_close(made, sample(host, windowed, long, **sampling), **TOLERANCE)


def test_the_branch_runs_as_rarely_for_a_model_that_is_called_twice(host, loaded, conditioned, monkeypatch):
    unet, rows = loaded[0].model.diffusion_model, []
    retain = unet.retention.forward
    monkeypatch.setattr(unet.retention, "forward", lambda x, maps, *args: rows.append(len(maps)) or retain(x, maps, *args))
    sample(host, wrapped(loaded[0], calls(CHANGES["latents"])), conditioned, steps=4, retention_every=2)
    assert rows == [6, 6, 6, 6]
