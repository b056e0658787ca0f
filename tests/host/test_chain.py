"""VideoChain in real servers: what runs again, what is kept, and that it is what hand-wired nodes make."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from comfy_host.errors import ExecutionFailed, ExecutionInterrupted, ServerFailed
from comfy_host.execution import Event, Execution
from comfy_host.server import Server
from graphs import FRAMES, SHIPPED, SIZE, STEPS, image_to_video, node
from PIL import Image
from safetensors.torch import load_file

from dreamvideo_core.colour import match_colours
from dreamvideo_core.images import fit_image, read_image

PICTURE = "dreamvideo_two_sprites.png"
ONE, TWO, THREE = "the red circle moves left", "the red circle moves up", "the blue square grows"


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def chain(*sentences: str, picture: str | None = PICTURE, **options) -> dict:
    """Loader "model", "chain", and both of its outputs saved exactly as "frames" and "hand_overs"."""
    inputs = {
        "prompts": "\n".join(sentences), "negative": "", "width": SIZE, "height": SIZE, "fit": "crop", "frames": FRAMES,
        "seed": 3, "seeds": "", "steps": STEPS, "text_scale": 2.0, "image_scale": 1.5, "order": "text_first",
        "sampler": "ddim", "scheduler": "simple", "rescale": 0.0, "seam": "keep", "colour_anchor": "off",
        "save_stages": False, "folder": "chain", **options,
    }  # fmt: skip
    graph = {
        "model": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "chain": node("VideoChain", model=["model", 0], clip=["model", 1], vae=["model", 2], **inputs),
        "frames": node("SaveFrames", frames=["chain", 0], name="frames"),
        "hand_overs": node("SaveFrames", frames=["chain", 1], name="hand_overs"),
    }
    if picture is not None:
        graph["picture"] = node("LoadImage", image=picture)
        graph["chain"]["inputs"]["image"] = ["picture", 0]
    return graph


def saved(server: Server, name: str) -> torch.Tensor:
    return load_file(server.output / f"{name}.safetensors")["frames"]


def sampled(execution: Execution) -> list[int]:
    """The stages that were sampled."""
    return [int(node.rsplit(".stage", 1)[1].split(".")[0]) for node in execution.executed if node.endswith(".sampler")]


def by_hand(picture: str) -> dict:
    """Two stages wired as a person would, each saved exactly."""
    graph = image_to_video(picture, ONE)
    graph["save"] = node("SaveFrames", frames=["decode", 0], name="first")
    graph["last"] = node("ImageFromBatch", image=["decode", 0], batch_index=FRAMES - 1, length=1)
    second = image_to_video(None, TWO)
    second["retention"]["inputs"] |= {"image": ["last", 0], "vae": ["model", 2]}
    second["sampler"]["inputs"]["seed"] = 4
    del second["model"], second["save"]
    rename = {name: f"{name}2" for name in second}
    for name, entry in second.items():
        inputs = {k: [rename.get(v[0], v[0]), v[1]] if isinstance(v, list) else v for k, v in entry["inputs"].items()}
        graph[rename[name]] = {**entry, "inputs": inputs}
    graph["retention2"]["inputs"]["image"] = ["last", 0]
    graph["save2"] = node("SaveFrames", frames=["decode2", 0], name="second")
    return graph


def test_a_chain_is_what_a_person_would_wire(any_server: Server):
    any_server.client.run(by_hand(PICTURE))
    any_server.client.run(chain(ONE, TWO))
    first, second = saved(any_server, "first"), saved(any_server, "second")
    assert torch.equal(saved(any_server, "frames"), torch.cat([first, second]))
    assert torch.equal(saved(any_server, "hand_overs"), torch.cat([first[-1:], second[-1:]]))


def test_only_what_changed_runs_again(any_server: Server):
    run = any_server.client.run
    options = {"seed": 1000}  # no other test's stages
    assert sampled(run(chain(ONE, TWO, THREE, **options))) == [1, 2, 3]
    assert sampled(run(chain(ONE, TWO, THREE, **options))) == []
    assert sampled(run(chain(ONE, TWO, "the blue square shrinks", **options))) == [3]
    assert sampled(run(chain(ONE, TWO, "the blue square shrinks", ONE, **options))) == [4]
    assert sampled(run(chain(ONE, THREE, "the blue square shrinks", ONE, **options))) == [2, 3, 4]
    assert sampled(run(chain(ONE, THREE, seeds="- 7", **options))) == [2]


def test_nodes_behind_an_unchanged_chain_rest(any_server: Server):
    any_server.client.run(chain(ONE, seed=2000))
    again = any_server.client.run(chain(ONE, seed=2000))
    assert not {"frames", "chain"} & set(again.executed)


def test_without_a_picture_the_first_stage_is_text_to_video(server: Server):
    server.client.run(chain(ONE, TWO, picture=None, seam="merge"))
    assert saved(server, "frames").shape == (1 + 2 * (FRAMES - 1), SIZE, SIZE, 3)


def test_the_anchor_gives_each_stage_the_colours_of_its_picture(server: Server):
    def made(anchor: str) -> list[torch.Tensor]:
        server.client.run(chain(ONE, TWO, colour_anchor=anchor))
        return [stage.movedim(-1, 1) * 2 - 1 for stage in saved(server, "frames").split(FRAMES)]

    (free, _), (first, second) = made("off"), made("first image")
    picture = fit_image(read_image(server.base.pack / "pictures" / PICTURE), SIZE, SIZE)
    torch.testing.assert_close(first, match_colours(free, picture).clamp(-1, 1), rtol=0, atol=1e-4)
    assert (first - free).abs().max() > 1e-2
    torch.testing.assert_close(second[:1], match_colours(second[:1], first[-1:]), rtol=0, atol=0.02)
    assert torch.equal(saved(server, "hand_overs").movedim(-1, 1) * 2 - 1, torch.cat([first[-1:], second[-1:]]))


def test_stages_are_saved_and_taken_up_by_another_server(server: Server, tmp_path: Path):
    graph = chain(ONE, TWO, save_stages=True, folder="saved/here", seed=3000)
    server.client.run(graph)
    folder = server.output / "saved" / "here"
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    assert [(s["number"], s["sentence"], s["seed"]) for s in stages.values()] == [(1, ONE, 3000), (2, TWO, 3001)]
    assert all(stage["sampling"]["text_scale"] == 2.0 and stage["model"] for stage in stages.values())
    for name, stage in stages.items():
        assert load_file(folder / name)["frames"].shape == (FRAMES, SIZE, SIZE, 3)
        assert Image.open(folder / stage["strip"]).height == SIZE + 2
    whole = saved(server, "frames")
    with Server(server.comfyui, server.base, server.output) as other:
        assert sampled(other.client.run(graph)) == []
        assert torch.equal(saved(other, "frames"), whole)
        changed = chain(ONE, THREE, save_stages=True, folder="saved/here", seed=3000)
        assert sampled(other.client.run(changed)) == [2]
    assert len(list(folder.glob("stage_*.safetensors"))) == 3


def test_a_killed_server_s_chain_goes_on_where_it_was(server: Server):
    graph = chain(ONE, TWO, THREE, save_stages=True, folder="killed", seed=4000)
    with Server(server.comfyui, server.base, server.output) as doomed:

        def kill_in_stage_two(event: Event) -> None:
            if (event.node or "").endswith("stage2.sampler"):
                os.kill(doomed.pid, signal.SIGKILL)

        with pytest.raises(ServerFailed):
            doomed.client.run(graph, listener=kill_in_stage_two)
    assert [path.suffix for path in sorted((server.output / "killed").iterdir())] == [".json", ".png", ".safetensors"]
    assert sampled(server.client.run(graph)) == [2, 3]


def test_cancel_takes_effect_within_a_step(any_server: Server):
    steps = []

    def cancel_in_stage_two(event: Event) -> None:
        if event.kind == "progress" and event.data["node"].endswith("stage2.sampler"):
            steps.append(event.data["value"])
            if len(steps) == 1:
                any_server.client.post("/interrupt", {})

    with pytest.raises(ExecutionInterrupted):
        any_server.client.run(chain(ONE, TWO, steps=40, seed=5000), listener=cancel_in_stage_two)
    assert len(steps) <= 2
    assert sampled(any_server.client.run(chain(ONE, TWO, steps=40, seed=5000))) == [2]


def test_the_stage_is_said(server: Server):
    told = []
    graph = chain(ONE, TWO, seed=6000, seeds="- 9")
    server.client.run(graph, listener=lambda event: told.append(event.data) if event.kind == "progress_state" else None)
    log = server.log_path.read_text()
    assert f"stage 1 of 2, seed 6000: {ONE}" in log and f"stage 2 of 2, seed 9: {TWO}" in log
    shown = [state["display_node_id"] for data in told for state in data["nodes"].values() if ".sampler" in state["node_id"]]
    assert set(shown) == {"chain"}


def test_a_manifest_that_is_not_ours_stays_as_it_is(server: Server):
    folder = server.output / "foreign"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format": "dreamvideo chain", "version": 9, "stages": {}}')
    with pytest.raises(ExecutionFailed, match=r"version 9; this pack has version 1\. Move it away"):
        server.client.run(chain(ONE, save_stages=True, folder="foreign"))
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]
    assert '"version": 9' in (folder / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompts": "\n# nothing\n"}, "prompts has no sentence"),
        ({"prompts": "a\n" * 65}, "prompts has 65 sentences; allowed: up to 64"),
        ({"width": 60}, "width is 60; it must be a multiple of 8"),
        ({"seeds": "x"}, "seeds holds 'x'"),
        ({"save_stages": True, "folder": "../out"}, "folder is '../out'; allowed: a name or a path below"),
    ],
)
def test_bad_input_is_refused_before_the_first_stage(server: Server, options: dict, words: str):
    graph = chain(ONE)
    graph["chain"]["inputs"] |= options
    with pytest.raises(ExecutionFailed, match=words) as caught:
        server.client.run(graph)
    assert caught.value.node_id == "chain"
