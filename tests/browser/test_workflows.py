"""Every workflow file in a real browser: opened from the template browser, run, and its result seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import saved
from comfy_host.browser import Canvas
from comfy_host.paths import REPOSITORY
from playwright.sync_api import expect

WORKFLOWS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((REPOSITORY / "workflows").glob("*.json"))
}
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


@pytest.mark.parametrize("name", [n if n in RUN_ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in WORKFLOWS])
def test_it_runs_to_a_visible_result(canvas: Canvas, name: str):
    canvas.open(WORKFLOWS[name])
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
