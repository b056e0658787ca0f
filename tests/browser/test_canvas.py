"""What a person does with the pack's nodes in a real browser."""

from __future__ import annotations

import json
import time

import pytest
from comfy_host.browser import Canvas
from comfy_host.paths import REPOSITORY
from playwright.sync_api import expect

WORKFLOW = json.loads((REPOSITORY / "workflows" / "image_to_video.json").read_text(encoding="utf-8"))
NAMES = {
    locale: {
        node_id: texts["display_name"]
        for node_id, texts in json.loads(
            (REPOSITORY / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8")
        ).items()
    }
    for locale in ("en", "zh")
}
ALIASES = {
    "LoadDreamVideo": "i2v checkpoint",
    "RetentionEncode": "i2v conditioning",
    "DualCFGSampler": "video ksampler",
    "DreamVideoGuider": "image guidance",
    "VideoChain": "long video",
    "ClipGrid": "film strip",
    "FirstFrameFidelity": "measure image retention",
    "VideoMetrics": "ssim per frame",
}


@pytest.mark.parametrize("node_id", NAMES["en"])
def test_a_node_is_found_by_its_name_and_by_what_it_is_for(canvas: Canvas, node_id: str):
    for words in (NAMES["en"][node_id], ALIASES[node_id]):
        found = canvas.search(words).filter(has_text=NAMES["en"][node_id])
        expect(found.first).to_be_visible()
        found.first.click()
        expect(canvas.page.get_by_role("dialog")).to_have_count(0)
        canvas.page.mouse.click(800, 500)  # the node hangs on the pointer until it is put down
        canvas.page.wait_for_function("() => window.app.graph._nodes.length === 1")
        assert canvas.node(node_id)["known"]
        canvas.clear()
    assert canvas.complaints == []


@pytest.mark.parametrize("locale", NAMES)
def test_every_node_has_a_help_page(canvas: Canvas, locale: str):
    canvas.reload(locale)
    try:
        for node_id, name in NAMES[locale].items():
            canvas.page.evaluate("type => { window.app.graph.add(window.LiteGraph.createNode(type)) }", node_id)
            canvas.select(canvas.node(node_id)["id"])
            canvas.fit()
            canvas.page.get_by_test_id("info-button").click()
            page = canvas.page.locator(".node-help-content")
            expect(page.get_by_role("heading", level=1)).to_have_text(name)
            expect(page.get_by_role("heading", level=2).first).to_have_text({"en": "Common mistakes", "zh": "常见错误"}[locale])
            expect(page.locator("img").first).not_to_have_js_property("naturalWidth", 0)
            canvas.clear()
        assert canvas.complaints == []
    finally:
        canvas.reload()


def test_a_stock_picture_is_linked_by_hand(canvas: Canvas):
    canvas.open(WORKFLOW)
    picture, retention = canvas.node("LoadImage")["id"], canvas.node("RetentionEncode")["id"]
    link = "id => { const n = window.app.graph.getNodeById(id); return n.inputs[n.findInputSlot('image')].link }"
    canvas.page.evaluate(
        "id => { const n = window.app.graph.getNodeById(id); n.disconnectInput(n.findInputSlot('image')) }", retention
    )
    assert canvas.page.evaluate(link, retention) is None
    canvas.connect((picture, "IMAGE"), (retention, "image"))
    assert canvas.page.evaluate(link, retention) is not None


def test_a_saved_clip_gives_its_graph_back(canvas: Canvas):
    canvas.open(WORKFLOW)
    canvas.set(canvas.node("DualCFGSampler")["id"], "steps", 1)
    canvas.set(canvas.node("CLIPTextEncode")["id"], "text", "the blue square shrinks")
    canvas.set(canvas.node("SaveVideo")["id"], "filename_prefix", "to_drop")
    canvas.queue()
    assert canvas.wait()[0] == "execution_success"
    before = canvas.nodes
    canvas.clear()
    canvas.drop(next(canvas.server.output.glob("to_drop*.mp4")))
    canvas.page.wait_for_function("count => window.app.graph._nodes.length === count", arg=len(before))
    after = canvas.nodes
    for node_type in ("CLIPTextEncode", "RetentionEncode", "DualCFGSampler"):
        assert [n["widgets"] for n in after if n["type"] == node_type] == [
            n["widgets"] for n in before if n["type"] == node_type
        ]


def test_bad_input_is_said_in_our_words(canvas: Canvas):
    canvas.open(json.loads((REPOSITORY / "workflows" / "two_stage_chain.json").read_text(encoding="utf-8")))
    canvas.set(canvas.node("VideoChain")["id"], "prompts", "# nothing")
    canvas.queue()
    kind, detail = canvas.wait()
    assert (kind, detail["node_type"]) == ("execution_error", "VideoChain")
    canvas.page.get_by_test_id("error-overlay-see-errors").click()
    expect(canvas.page.get_by_test_id("properties-panel")).to_contain_text("prompts has no sentence; write one a line")


def test_all_frames_move_while_a_clip_is_made_and_cancel_ends_it(canvas: Canvas):
    canvas.open(WORKFLOW)
    sampler = canvas.node("DualCFGSampler")["id"]
    canvas.set(sampler, "steps", 500)
    for side in ("width", "height"):
        canvas.set(canvas.node("RetentionEncode")["id"], side, 256)  # a step takes longer than some frames are shown
    canvas.queue()
    place = canvas.page.wait_for_function(PREVIEW, arg=sampler).json_value()
    canvas.page.evaluate(COUNT)
    views = {canvas.page.screenshot(clip=place) for _ in range(15)}
    previews = canvas.page.evaluate("window.dreamvideoPreviews")
    started = time.monotonic()
    canvas.command("Comfy.Interrupt")
    assert canvas.wait()[0] == "execution_interrupted"
    assert time.monotonic() - started < 20
    assert len(views) > previews + 3


# Where the preview is, once it is there.
PREVIEW = """id => {
    const images = window.app.graph.getNodeById(id).widgets.flatMap(w => [...(w.element?.querySelectorAll("img") ?? [])]);
    const shown = images.find(image => image.naturalWidth > 0)?.getBoundingClientRect();
    return shown && {x: shown.x, y: shown.y, width: shown.width, height: shown.height};
}"""
COUNT = """() => {
    window.dreamvideoPreviews = 0;
    window.app.api.addEventListener("b_preview_with_metadata", () => { window.dreamvideoPreviews += 1 });
}"""
