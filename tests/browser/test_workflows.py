"""Every workflow file in a real browser: opened from the template browser, run, and its result seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import saved
from comfy_host.browser import Canvas
from comfy_host.paths import REPOSITORY
from playwright.sync_api import expect
from tiny import DYNAMICRAFTER, random_pipeline

WORKFLOWS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((REPOSITORY / "workflows").glob("*.json"))
}
# Those whose models are public ones that the tests do not have.
PHOTOGRAPHS = [name for name in WORKFLOWS if name.startswith("photograph_")]
RUNNING = [name for name in WORKFLOWS if name not in PHOTOGRAPHS]
RUN_ALWAYS = ("image_to_video", "text_to_video", "two_stage_chain", "upscale")
# Nodes that show what was made.
SHOWING = ("SaveVideo", "SaveImage", "PreviewImage", "SaveAnimatedWEBP")


@pytest.mark.parametrize("name", WORKFLOWS)
def test_it_opens_from_the_template_browser(canvas: Canvas, name: str):
    canvas.open_templates()
    card = canvas.template(name)
    card.scroll_into_view_if_needed()
    expect(card.locator("img").first).to_have_js_property("naturalWidth", 512)  # the thumbnail, not a stand-in
    card.click()
    expect(canvas.page.get_by_role("dialog")).to_have_count(0)
    assert {node["title"] for node in canvas.nodes} == {node["title"] for node in WORKFLOWS[name]["nodes"]}
    assert all(node["known"] for node in canvas.nodes)
    assert canvas.overlaps == []
    assert canvas.complaints == []


@pytest.mark.parametrize("name", [n if n in RUN_ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in RUNNING])
def test_it_runs_to_a_visible_result(canvas: Canvas, name: str):
    run_to_a_visible_result(canvas, WORKFLOWS[name])


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_it_runs_with_a_small_model_in_place_of_the_public_one(canvas: Canvas, name: str):
    run_to_a_visible_result(canvas, with_small_model(WORKFLOWS[name], canvas.server.base.models))


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_it_names_the_files_that_it_needs(name: str):
    """ComfyUI offers to download what a node's properties name, where that is the value of one of its widgets."""
    for node in WORKFLOWS[name]["nodes"]:
        for model in node["properties"].get("models", []):
            assert model["name"] in node["widgets_values"] and model["url"].startswith("https://")
            assert model["directory"] in ("dreamvideo", "text_encoders", "clip_vision")
    assert sum(len(node["properties"].get("models", [])) for node in WORKFLOWS[name]["nodes"]) == 3


def with_small_model(workflow: dict, models: Path) -> dict:
    """The workflow with a random model of the same mechanism, which is written into `models`; its parts replace other files."""
    kind = "ends" if "loop" in workflow["nodes"][-1]["widgets_values"][0] else "repeat"
    config = replace(DYNAMICRAFTER, resampler=replace(DYNAMICRAFTER.resampler, num_frames=16))
    path = models / "dreamvideo" / f"small_{kind}.safetensors"
    path.parent.mkdir(exist_ok=True)
    random_pipeline(replace(config, unet=replace(config.unet, image_latents=kind))).save(path)
    workflow = json.loads(json.dumps(workflow))
    nodes = {node["id"]: node for node in workflow["nodes"]}
    (model,) = [node for node in nodes.values() if node["type"] == "LoadDreamVideo"]
    for node in nodes.values():
        small = {1024: 64, 576: 32, 512: 64, 320: 32, 50: 2, model["widgets_values"][0]: path.name}
        node["widgets_values"] = [
            value if isinstance(value, bool) else small.get(value, value) for value in node["widgets_values"]
        ]
    for link in workflow["links"]:
        slot = {"CLIPLoader": 1, "CLIPVisionLoader": 3}.get(nodes[link[1]]["type"])
        if slot is not None:
            model["outputs"][slot]["links"].append(link[0])
            link[1:3] = [model["id"], slot]
    workflow["nodes"] = [node for node in nodes.values() if node["type"] not in ("CLIPLoader", "CLIPVisionLoader")]
    return workflow


def run_to_a_visible_result(canvas: Canvas, workflow: dict) -> None:
    canvas.open(workflow)
    canvas.queue()
    assert canvas.wait()[0] == "execution_success"
    active = [node["id"] for node in canvas.nodes if node["type"] in SHOWING and node["mode"] == 0]
    assert active
    for node_id in active:
        canvas.page.wait_for_function(SHOWN, arg=node_id)
    assert not [pair for pair in canvas.overlaps if pair.startswith("Model ")]  # the loader has room for its remark
    assert canvas.complaints == []


@pytest.mark.parametrize("file", saved.FILES, ids=saved.name)
def test_values_of_saved_workflows_land_where_they_did(canvas: Canvas, file: Path):
    canvas.open(json.loads(file.read_text(encoding="utf-8")))
    saved.assert_same(canvas.prompt, file)


SHOWN = """id => {
    const node = window.app.graph.getNodeById(id);
    const shown = [...(node.imgs ?? []), ...node.widgets.flatMap(w => [...(w.element?.querySelectorAll("img, video") ?? [])])];
    return shown.some(element => element.naturalWidth > 0 || element.videoWidth > 0);
}"""
