"""The hidden node of a chain between being asked and running, in ComfyUI inside this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_host.in_process import InProcessComfyUI
from graphs import FRAMES, SHIPPED, SIZE


@pytest.fixture(scope="module")
def inputs(host: InProcessComfyUI) -> dict[str, Any]:
    model, clip, vae = host.call("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default")[:3]
    texts = [host.call("CLIPTextEncode", clip=clip, text=text)[0] for text in ("the red circle moves left", "")]
    positive, negative, latent = host.call(
        "RetentionEncode", positive=texts[0], negative=texts[1], image=torch.rand(1, SIZE, SIZE, 3), width=SIZE, height=SIZE,
        frames=FRAMES, batch_size=1, fit="crop", strength=1.0, start=0.0, end=1.0,
    )  # fmt: skip
    return {
        "model": model, "vae": vae, "positive": positive, "negative": negative, "latent": latent, "number": 1, "total": 1,
        "sentence": "the red circle moves left", "seed": 3, "sampling": "{}", "anchor": False, "folder": "between",
        "shown_on": "7",
    }  # fmt: skip


def test_an_executor_that_gives_no_hidden_values_can_expand_a_chain(host):
    node = host.nodes["VideoChain"]
    given = {name: [kind[1].get("default")] for name, kind in node.INPUT_TYPES()["required"].items()}
    links = {name: [[str(number), 0]] for number, name in enumerate(("model", "clip", "vae"))}
    combos = {name: [node.INPUT_TYPES()["required"][name][1]["options"][0]] for name in ("order", "sampler", "scheduler")}
    graph = node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**{**given, **combos, **links}).expand
    assert sum(made["class_type"] == "DreamVideoChainStage" for made in graph.values()) == 2


FRAMES_MADE = torch.rand(FRAMES, SIZE, SIZE, 3)


class Executor:
    """Asks and runs the node as ComfyUI's executor does, item `index` of a list in prompt `prompt`."""

    def __init__(self, host: InProcessComfyUI, prompt: str = "prompt", index: int = 0):
        self.node = host.nodes["DreamVideoChainStage"].PREPARE_CLASS_CLONE(None)
        self.place = prompt, "3.0.0.stage1.keep", index

    def __call__(self, method: str, **inputs: Any) -> Any:
        from comfy_execution.utils import CurrentNodeContext

        with torch.inference_mode(), CurrentNodeContext(*self.place):
            return getattr(self.node, method)(**inputs)

    def keep(self, **inputs: Any) -> torch.Tensor:
        assert self("check_lazy_status", **inputs) == ["frames"]
        assert self("check_lazy_status", frames=FRAMES_MADE, **inputs) == []
        return self("EXECUTE_NORMALIZED", frames=FRAMES_MADE, **inputs).args[0]


def vanish(host: InProcessComfyUI) -> None:
    import folder_paths

    for path in (Path(folder_paths.get_output_directory()) / "between").glob("*"):
        path.unlink()


def test_a_stage_that_vanishes_when_it_was_found_is_there_all_the_same(host, inputs):
    Executor(host).keep(**inputs)
    again = Executor(host, "another prompt")
    assert again("check_lazy_status", **inputs) == []
    vanish(host)
    assert torch.equal(again("EXECUTE_NORMALIZED", **inputs).args[0], FRAMES_MADE)
    assert Executor(host, "a third")("check_lazy_status", **inputs) == ["frames"]


def test_what_is_held_is_let_go(host, inputs):
    asked = host.module("nodes.stage")._pending
    Executor(host).keep(**inputs)
    assert not asked
    for index in range(2):
        Executor(host, "stopped", index)("check_lazy_status", **inputs)
    assert len(asked) == 2
    Executor(host, "next")("check_lazy_status", **inputs)
    assert [place.prompt_id for place in asked] == ["next"]
    vanish(host)


def test_other_executors_that_ask_nothing_can_run_it(host, inputs):
    assert torch.equal(host.call("DreamVideoChainStage", frames=FRAMES_MADE, **inputs)[0], FRAMES_MADE)
    assert torch.equal(host.call("DreamVideoChainStage", **inputs)[0], FRAMES_MADE)
    vanish(host)
    with pytest.raises(ValueError, match="stage 1 was kept and is gone from its folder"):
        host.call("DreamVideoChainStage", **inputs)


def test_a_stage_is_filed_under_what_it_was_before_sampling(host, inputs):
    """A patch of another object, mutated while it samples."""
    from comfy.latent_formats import SD15

    state = SD15()  # any object of ComfyUI's own
    model = inputs["model"].clone()
    model.model_options["state"] = state
    patched = {**inputs, "model": model}
    executor = Executor(host)
    assert executor("check_lazy_status", **patched) == ["frames"]
    before, state.scale_factor = state.scale_factor, 7.0
    executor("EXECUTE_NORMALIZED", frames=FRAMES_MADE, **patched)
    state.scale_factor = before
    assert Executor(host, "next")("check_lazy_status", **patched) == []
    vanish(host)


def expanded(host: InProcessComfyUI, **linked: Any) -> dict[str, dict]:
    """The graph of a chain of two, some of whose values came through links."""
    node = host.nodes["VideoChain"]
    given = {name: [kind[1].get("default")] for name, kind in node.INPUT_TYPES()["required"].items()}
    links = {name: [[str(number), 0]] for number, name in enumerate(("model", "clip", "vae"))}
    given |= {"order": ["text_first"], "sampler": ["ddim"], "scheduler": ["simple"], **links, **linked}
    return node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**given).expand


def test_numbers_and_texts_through_links_become_what_is_declared(host):
    import numpy as np

    graph = expanded(host, seed=[5.0], frames=[np.int64(4)], width=["64"], image_scale=[2])
    (stage,) = (n["inputs"] for n in graph.values() if n["class_type"] == "DreamVideoChainStage" and n["inputs"]["number"] == 1)
    (retention,) = (n["inputs"] for name, n in graph.items() if name.endswith("stage1.retention"))
    assert (stage["seed"], retention["frames"], retention["width"]) == (5, 4, 64)
    assert all(type(value) is int for value in (stage["seed"], retention["frames"], retention["width"]))


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("seed", [-1], "seed is -1; allowed: 0 to 18446744073709551615"),
        ("seed", [2.5], "seed is 2.5; allowed: whole numbers"),
        ("seed", [], "seed is an empty list"),
        ("steps", [0], "steps is 0; allowed: 1 to 1000"),
        ("steps", [None], "steps is None; allowed: whole numbers"),
        ("frames", [float("nan")], "frames is nan; allowed: whole numbers"),
        ("text_scale", [float("nan")], "text_scale is nan; allowed: 0.0 to 100.0"),
        ("text_scale", ["loud"], "text_scale is 'loud'; allowed: numbers"),
        ("retention_every", [0], "retention_every is 0; allowed: 1 to 100"),
        ("sampler", ["x"], "sampler is 'x'; allowed: "),
        ("colour_anchor", ["x"], "colour_anchor is 'x'; allowed: off, first image"),
        ("prompts", [None], "prompts is None; allowed: text"),
        ("folder", [None], "folder is None; allowed: text"),
        ("save_stages", ["no"], "save_stages is 'no'; allowed: true or false"),
    ],
)
def test_what_comes_through_a_link_has_the_bounds_of_what_is_typed(host, name, values, words):
    with pytest.raises(ValueError, match=words):
        expanded(host, **{name: values})


@pytest.mark.parametrize(
    ("node", "values", "words"),
    [
        ("DualCFGSampler", {"steps": 0}, "steps is 0; allowed: 1 to 1000"),
        ("DualCFGSampler", {"retention_every": 0}, "retention_every is 0; allowed: 1 or more"),
        ("DreamVideoGuider", {"retention_every": 0}, "retention_every is 0; allowed: 1 or more"),
        ("RetentionEncode", {"frames": 0}, "frames is 0; allowed: 1 to 1024"),
        ("RetentionEncode", {"batch_size": 0}, "batch_size is 0; allowed: 1 or more"),
        ("RetentionEncode", {"strength": float("nan")}, "strength is nan; allowed: 0 or more"),
    ],
)
def test_numbers_through_links_that_other_nodes_cannot_use(host, inputs, node, values, words):
    scales = {"text_scale": 2.0, "image_scale": 1.5, "order": "text_first"}
    sampling = {"seed": 1, "steps": 2, "sampler": "ddim", "scheduler": "simple", "denoise": 1.0, "latent": inputs["latent"]}
    texts = {name: inputs[name] for name in ("positive", "negative")}
    encoding = {
        "width": SIZE,
        "height": SIZE,
        "frames": 4,
        "batch_size": 1,
        "fit": "crop",
        "strength": 1.0,
        "start": 0,
        "end": 1,
    }
    given = {
        "DualCFGSampler": {"model": inputs["model"], **scales, **sampling},
        "DreamVideoGuider": {"model": inputs["model"], **scales},
        "RetentionEncode": encoding,
    }
    with pytest.raises(ValueError, match=words):
        host.call(node, **{**texts, **given[node], **values})


def test_clips_that_cannot_be_joined(host):
    join = host.module("nodes.stage").VideoChainJoin.execute
    clip = torch.zeros(FRAMES, SIZE, SIZE, 3)
    (frames,), _ = join(["keep"], stage1=[clip], stage3=[clip]).result
    assert len(frames) == 2 * FRAMES
    with pytest.raises(ValueError, match="the stages are lists of 2, 1 clips"):
        join(["keep"], stage1=[clip, clip], stage2=[clip])
