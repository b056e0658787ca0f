"""VideoChain in real servers: what runs again, what is kept, and that it is what hand-wired nodes make."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from chains import ONE, PICTURE, THREE, TWO, chain, remarks, sampled
from comfy_host.errors import ExecutionFailed, ExecutionInterrupted, PromptRejected, ServerFailed
from comfy_host.execution import Event, Execution
from comfy_host.server import Server
from graphs import FRAMES, SIZE, image_to_video, node
from PIL import Image
from safetensors.torch import load_file

from dreamvideo_core.media.colour import match_colours
from dreamvideo_core.media.images import fit_image, read_image
from dreamvideo_core.sampling.pipeline import SHIPPED as SHIPPED_FILE
from dreamvideo_core.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


@pytest.fixture(params=["server", "server_0_16_3"])
def any_server(request: pytest.FixtureRequest) -> Server:
    return request.getfixturevalue(request.param)


def saved(server: Server, name: str) -> torch.Tensor:
    return load_file(server.output / f"{name}.safetensors")["frames"]


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


def patched(graph: dict, *patches: dict) -> dict:
    """The chain with its model through other nodes first."""
    for number, patch in enumerate(patches):
        graph[f"patch{number}"] = patch
        patch["inputs"]["model"] = graph["chain"]["inputs"]["model"]
        graph["chain"]["inputs"]["model"] = [f"patch{number}", 0]
    return graph


def test_stages_of_patched_models_are_saved_and_taken_up_by_another_server(server: Server):
    """APG changes its own state while it samples."""
    graph = patched(
        chain(ONE, TWO, save_stages=True, folder="patched", seed=3100),
        node("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2),
        node("APG", eta=1.0, norm_threshold=5.0, momentum=0.5),
    )
    first = server.client.run(graph)
    assert sampled(first) == [1, 2] and not remarks(first)
    whole = saved(server, "frames")
    with Server(server.comfyui, server.base, server.output) as other:
        assert sampled(other.client.run(graph)) == []
        assert torch.equal(saved(other, "frames"), whole)
    assert len(list((server.output / "patched").glob("stage_*.safetensors"))) == 2


def test_functions_of_other_packs_are_known_for_this_session_alone(server: Server):
    def made(kind: str) -> tuple[Execution, torch.Tensor]:
        graph = chain(ONE, save_stages=True, folder="foreign_patch", seed=3200)
        execution = server.client.run(patched(graph, node("PatchBrightness", kind=kind)))
        return execution, saved(server, "frames")

    (dark, dark_frames), (bright, bright_frames) = made("dark"), made("bright")
    assert sampled(dark) == sampled(bright) == [1]
    assert (dark_frames - bright_frames).abs().max() > 0.05
    for execution in (dark, bright):
        (line,) = remarks(execution)
        assert line.startswith("stage 1 is not saved, only kept until ComfyUI ends: it depends on <lambda> of probe")
    assert not list((server.output / "foreign_patch").glob("stage_*"))
    server.client.post("/free", {"unload_models": False, "free_memory": True})  # results that ComfyUI itself keeps
    again, again_frames = made("dark")
    assert sampled(again) == [] and torch.equal(again_frames, dark_frames)


def test_a_killed_server_s_chain_goes_on_where_it_was(server: Server):
    graph = chain(ONE, TWO, THREE, save_stages=True, folder="killed", seed=4000)
    with Server(server.comfyui, server.base, server.output) as doomed:

        def kill_in_stage_two(event: Event) -> None:
            if (event.node or "").endswith("stage2.sampler"):
                os.kill(doomed.pid, signal.SIGKILL)

        with pytest.raises(ServerFailed):
            doomed.client.run(graph, listener=kill_in_stage_two)
    shown = [path.suffix for path in sorted((server.output / "killed").iterdir()) if not path.name.startswith(".")]
    assert shown == [".json", ".png", ".safetensors"]
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
        ({"width": 60}, "width is 60; allowed: multiples of 8 up to 4096. Take 64"),
        ({"seeds": "x"}, "seeds holds 'x'"),
        ({"save_stages": True, "folder": "../out"}, "folder is '../out'; allowed: a name or a path below"),
        ({"save_stages": True, "folder": "C:\\out"}, "it begins at another place"),
        ({"save_stages": True, "folder": "out/nul.txt"}, "'nul.txt' is a device on Windows"),
    ],
)
def test_bad_input_is_refused_before_the_first_stage(server: Server, options: dict, words: str):
    graph = chain(ONE)
    graph["chain"]["inputs"] |= options
    with pytest.raises(ExecutionFailed, match=words) as caught:
        server.client.run(graph)
    assert caught.value.node_id == "chain"


def both(graph: dict, **options) -> dict:
    """The chain with a list of two pictures, the second inverted, and its clips of all pictures in one."""
    graph["inverted"] = node("ImageInvert", image=["picture", 0])
    graph["batch"] = node("ImageBatch", image1=["picture", 0], image2=["inverted", 0])
    graph["pictures"] = node("RebatchImages", images=["batch", 0], batch_size=1)
    graph["chain"]["inputs"] |= {"image": ["pictures", 0], **options}
    return together(graph)


def together(graph: dict) -> dict:
    for name, output in (("frames", 0), ("hand_overs", 1)):
        graph[f"all_{name}"] = node("RebatchImages", images=["chain", output], batch_size=4096)
        graph[name]["inputs"]["frames"] = [f"all_{name}", 0]
    return graph


def alone(server: Server, *sentences: str, invert: bool, **options) -> tuple[torch.Tensor, torch.Tensor]:
    graph = chain(*sentences, **options)
    if invert:
        graph["inverted"] = node("ImageInvert", image=["picture", 0])
        graph["chain"]["inputs"]["image"] = ["inverted", 0]
    server.client.run(graph)
    return saved(server, "frames"), saved(server, "hand_overs")


def test_each_picture_of_a_list_gets_its_chain(any_server: Server):
    any_server.client.run(both(chain(ONE, TWO, seed=7000)))
    made = saved(any_server, "frames"), saved(any_server, "hand_overs")
    plain, inverted = (alone(any_server, ONE, TWO, seed=7000, invert=invert) for invert in (False, True))
    for whole, first, second in zip(made, plain, inverted, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    assert (plain[0] - inverted[0]).abs().max() > 0.1


def test_lists_of_sentences_and_pictures_go_together(any_server: Server):
    graph = both(chain(ONE, seed=7100), prompts=["texts", 0])
    graph["texts"] = node("SplitText", text=f"{ONE}|{TWO}\n{THREE}")
    any_server.client.run(graph)
    frames, hand_overs = saved(any_server, "frames"), saved(any_server, "hand_overs")
    first, second = alone(any_server, ONE, seed=7100, invert=False), alone(any_server, TWO, THREE, seed=7100, invert=True)
    assert torch.equal(frames, torch.cat([first[0], second[0]]))
    assert torch.equal(hand_overs, torch.cat([first[1], second[1]]))


def test_one_picture_serves_a_list_of_sentences(server: Server):
    graph = together(chain(ONE, seed=7200))
    graph["texts"] = node("SplitText", text=f"{ONE}|{TWO}")
    graph["chain"]["inputs"]["prompts"] = ["texts", 0]
    server.client.run(graph)
    frames = saved(server, "frames")
    clips = [alone(server, text, seed=7200, invert=False)[0] for text in (ONE, TWO)]
    assert torch.equal(frames, torch.cat(clips))


def test_lists_that_do_not_go_together_are_refused_before_the_first_stage(server: Server):
    graph = both(chain(ONE, seed=7300), prompts=["texts", 0])
    graph["texts"] = node("SplitText", text=f"{ONE}|{TWO}")
    graph["batch3"] = node("ImageBatch", image1=["batch", 0], image2=["picture", 0])
    graph["pictures"]["inputs"]["images"] = ["batch3", 0]
    begun = []
    with pytest.raises(ExecutionFailed, match=r"image is a list of 3, but other inputs of Video Chain are lists of 2"):
        server.client.run(graph, listener=lambda event: begun.append(event.node or ""))
    assert not [name for name in begun if name.endswith("sampler")]


@contextmanager
def occupied(path: Path) -> Iterator[None]:
    """A file where a folder would be."""
    aside = path.with_name("aside")
    if path.exists():
        path.rename(aside)
    path.write_text("mine")
    try:
        yield
    finally:
        path.unlink()
        if aside.exists():
            aside.rename(path)


def test_a_temporary_folder_that_cannot_be_used_stops_no_chain(any_server: Server):
    with occupied(any_server.workspace / "temp" / "dreamvideo_chain"):
        execution = any_server.client.run(chain(ONE, TWO, seed=7400))
    assert sampled(execution) == [1, 2]
    lines = remarks(execution)
    assert [line.partition(":")[0] for line in lines] == [f"stage {n} is not kept for the next run" for n in (1, 2)]
    assert all("is a file; move it away" in line for line in lines)
    assert lines[0] in any_server.log_path.read_text()


def lone_stage(**changed) -> dict:
    """The hidden node of a chain as any client can call it."""
    graph = image_to_video(PICTURE)
    inputs = {
        "number": 1, "total": 1, "sentence": ONE, "seed": 3, "sampling": "{}", "anchor": False, "folder": "lone",
        "shown_on": "stage", **changed,
    }  # fmt: skip
    graph["stage"] = node(
        "DreamVideoChainStage", model=["model", 0], vae=["model", 2], positive=["retention", 0], negative=["retention", 1],
        latent=["retention", 2], frames=["decode", 0], **inputs,
    )  # fmt: skip
    graph["save"] = node("SaveFrames", frames=["stage", 0], name="lone")
    return graph


def test_a_stage_called_by_a_client_is_one_of_any_chain(server: Server):
    server.client.run(lone_stage())
    assert len(list((server.output / "lone").glob("stage_*.safetensors"))) == 1


@pytest.mark.parametrize(
    "folder", ["{tmp}/anywhere", "../../{name}", "..\\{name}", "C:\\{name}", "leads_out/{name}", "lone/CON", "lone/a.", "a\0b"]
)
def test_a_client_writes_nothing_outside_the_output_folder(server: Server, tmp_path: Path, folder: str):
    link = server.output / "leads_out"
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path)
    name = f"outside_{tmp_path.name}"
    before = {path for path in server.output.parent.rglob("*") if server.output not in path.parents}
    with pytest.raises(ExecutionFailed, match=r"folder is .*; allowed: a name or a path below ComfyUI's output folder"):
        server.client.run(lone_stage(folder=folder.format(tmp=tmp_path, name=name)))
    assert not list(tmp_path.iterdir())
    after = {path for path in server.output.parent.rglob("*") if server.output not in path.parents}
    assert not [path for path in after - before if "stage_" in path.name or name in path.name]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sampling": "[" * 1500}, "sampling is nested too deeply"),
        ({"sampling": '{"steps": NaN}'}, "sampling is no JSON"),
        ({"sampling": "[1]"}, r"sampling is '\[1\]'; it must be a JSON object"),
        ({"sampling": '{"a": "' + "x" * 5000 + '"}'}, "sampling has 5009 characters"),
        ({"number": 3, "total": 2}, "total is 2; allowed: 3 to 64"),
    ],
)
def test_what_a_client_sends_to_a_stage_is_checked(server: Server, changed: dict, words: str):
    with pytest.raises(ExecutionFailed, match=words):
        server.client.run(lone_stage(**changed))


@pytest.mark.parametrize("number", [0, -1, 65])
def test_numbers_of_stages_have_bounds(server: Server, number: int):
    with pytest.raises(PromptRejected, match="number"):
        server.client.run(lone_stage(number=number))


@pytest.fixture(scope="module")
def text_to_video(server: Server) -> str:
    """The shipped model without its branch."""
    shipped = load_checkpoint(SHIPPED_FILE)
    parts = {part: state for part, state in shipped.parts.items() if part != "retention"}
    path = server.base.models / "dreamvideo" / "text_only.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, Checkpoint(replace(shipped.config, retention=None), parts))
    return path.name


def test_a_text_to_video_model_is_refused_before_the_first_of_two_stages(server: Server, text_to_video: str):
    graph = chain(ONE, TWO, picture=None, seed=7500)
    graph["model"]["inputs"]["checkpoint"] = text_to_video
    begun = []
    with pytest.raises(ExecutionFailed, match="there are 2 sentences, but this model has no retention branch"):
        server.client.run(graph, listener=lambda event: begun.append(event.node or ""))
    assert not [name for name in begun if name.endswith("sampler")]
    graph["chain"]["inputs"]["prompts"] = ONE
    assert sampled(server.client.run(graph)) == [1]
