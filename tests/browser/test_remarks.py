"""What nodes say stays on them: after the run, a cached run and a reload, on both frontends, drawn or as elements."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from comfy_host.browser import Canvas
from comfy_host.paths import REPOSITORY
from graphs import SHIPPED, node
from playwright.sync_api import Locator, expect

PICTURE = "dreamvideo_two_sprites.png"
LOADED = "made for 128 x 128, 8 frames, 5 steps, scales 1.15 / 1.15"
FIDELITY = "FFF_SSIM 1.000, FFF_CLIP is not measured: connect clip_vision"
METRICS = "SSIM, mean 1.000"


def stages(seed: int, *sentences: str) -> str:
    return "\n".join(f"stage {n + 1} of {len(sentences)}, seed {seed + n}: {text}" for n, text in enumerate(sentences))


def graph(prompts: str) -> dict:
    """A chain, and what measures its clip against the clip itself."""
    return {
        "1": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default", overlay="none", cuda_graphs=False),
        "2": node("LoadImage", image=PICTURE),
        "3": node(
            "VideoChain", model=["1", 0], clip=["1", 1], vae=["1", 2], image=["2", 0], prompts=prompts, negative="", width=32,
            height=32, fit="crop", frames=2, seed=3, seeds="", steps=1, text_scale=1.0, image_scale=1.0, order="text_first",
            sampler="ddim", scheduler="simple", rescale=0.0, seam="merge", colour_anchor="off", save_stages=False,
            folder="dreamvideo_chain", guidance_start=0.0, guidance_end=1.0, retention_every=1,
        ),
        "4": node("FirstFrameFidelity", image=["3", 0], frames=["3", 0], fit="crop"),
        "5": node("PreviewAny", source=["4", 0]),
        "6": node("VideoMetrics", frames=["3", 0], reference=["3", 0]),
    }  # fmt: skip


PAGES = {
    "drawn": ("server", False),
    "nodes 2.0": ("server", True),
    "newest frontend, drawn": ("server_newest_frontend", False),
    "newest frontend, nodes 2.0": ("server_newest_frontend", True),
}


@pytest.fixture(scope="module")
def canvas(request: pytest.FixtureRequest) -> Iterator[Canvas]:
    name, nodes_2 = PAGES[request.param]
    with Canvas(request.getfixturevalue(name), nodes_2) as opened:
        yield opened


def on(*pages: str) -> pytest.MarkDecorator:
    """Run a test on these pages; each is opened once for all tests."""
    return pytest.mark.parametrize("canvas", pages, indirect=True, scope="module")


def run(canvas: Canvas) -> None:
    canvas.queue()
    assert canvas.wait()[0] == "execution_success"


def said(canvas: Canvas, text: str) -> Locator:
    """The places on the page with exactly this text."""
    return canvas.page.locator(".dreamvideo-remark").filter(has_text=text)


def expect_said(canvas: Canvas, *texts: str) -> None:
    """These remarks are seen and no others, and no words of theirs stand anywhere else on the page."""
    canvas.fit()
    expect(canvas.page.locator(".dreamvideo-remark:visible")).to_have_count(len(texts))
    for text in texts:
        expect(said(canvas, text)).to_be_visible()
        expect(said(canvas, text)).to_have_text(text)
        expect(canvas.page.get_by_text(text.splitlines()[0])).to_have_count(1)


@on(*PAGES)
def test_text_stays_on_the_nodes(canvas: Canvas):
    seed = 3 if canvas.nodes_2 else 13  # what one page has made, another one has not
    first = stages(seed, "the red circle grows", "the blue square grows")
    second = stages(seed, "the red circle grows", "nothing moves")
    canvas.open_prompt(graph("the red circle grows\nthe blue square grows"))
    for widget, value in {"seed": seed, "control_after_generate": "fixed"}.items():
        canvas.set(canvas.node("VideoChain")["id"], widget, value)
    before = canvas.page.evaluate(VALUES)
    run(canvas)
    expect_said(canvas, LOADED, first, FIDELITY, METRICS)
    run(canvas)
    expect_said(canvas, LOADED, first, FIDELITY, METRICS)
    canvas.refresh()
    expect_said(canvas, LOADED, first, FIDELITY, METRICS)
    assert canvas.page.evaluate(VALUES) == before
    assert not [word for word in ("remark", "made for", "FFF_SSIM 1", "stage 1") if word in canvas.page.evaluate(SAVED)]
    assert not [name for node in canvas.prompt.values() for name in node["inputs"] if "remark" in name]

    canvas.set(canvas.node("VideoChain")["id"], "prompts", "the red circle grows\nnothing moves")
    run(canvas)  # the first stage is kept, and comes first still
    expect_said(canvas, LOADED, second, FIDELITY, METRICS)
    canvas.set(canvas.node("VideoChain")["id"], "prompts", "the red circle grows")
    run(canvas)
    expect_said(canvas, LOADED, stages(seed, "the red circle grows"), FIDELITY, METRICS)
    assert canvas.complaints == []


@on("drawn")
def test_text_reaches_the_workflow_that_was_run_while_another_is_open(canvas: Canvas):
    workflow = json.loads((REPOSITORY / "workflows" / "image_to_video.json").read_text(encoding="utf-8"))
    canvas.open(workflow)
    canvas.set(canvas.node("DualCFGSampler")["id"], "steps", 2)
    ran = canvas.page.evaluate("() => window.app.graph.serialize()")
    canvas.queue()
    canvas.open({**workflow, "id": "00000000-0000-4000-8000-000000000001"})
    assert canvas.wait()[0] == "execution_success"
    canvas.page.wait_for_timeout(500)
    expect(canvas.page.locator(".dreamvideo-remark:visible")).to_have_count(0)
    canvas.open(ran)
    expect(said(canvas, LOADED)).to_be_visible()
    assert canvas.complaints == []


@on("drawn", "newest frontend, nodes 2.0")
def test_text_stays_on_a_node_in_a_subgraph(canvas: Canvas):
    canvas.reload()  # what the page keeps of a workflow begins anew
    canvas.open_prompt(graph("the red circle grows"))
    canvas.page.evaluate(INTO_A_SUBGRAPH, canvas.node("LoadDreamVideo")["id"])
    run(canvas)
    assert canvas.page.evaluate(INSIDE) == [LOADED]
    canvas.page.wait_for_timeout(2000)  # it keeps changes after a while
    canvas.refresh()
    assert canvas.page.evaluate(INSIDE) == [LOADED]
    canvas.page.evaluate("() => window.app.canvas.setGraph([...window.app.graph.subgraphs.values()].at(-1))")
    canvas.fit()
    expect(said(canvas, LOADED)).to_be_visible()
    canvas.page.evaluate("() => window.app.canvas.setGraph(window.app.rootGraph)")


VALUES = "() => window.app.graph.serialize().nodes.map(node => [node.type, node.widgets_values ?? []])"
SAVED = "() => JSON.stringify(window.app.graph.serialize())"
INTO_A_SUBGRAPH = "id => { window.app.graph.convertToSubgraph(new Set([window.app.graph.getNodeById(id)])) }"
INSIDE = """() => [...window.app.rootGraph.subgraphs.values()].at(-1).nodes.flatMap(
    node => (node.widgets ?? []).filter(widget => widget.name === "dreamvideo_remark").map(widget => widget.value))"""
