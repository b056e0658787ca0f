"""ComfyUI's page in a headless browser: what a user sees and does there."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright, sync_playwright

from .errors import SetupFailed
from .paths import PACK_NAME
from .server import Server

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--disable-component-update",
    "--disable-background-networking",
)  # fmt: skip
_SIZE = {"width": 1600, "height": 1000}
_START_SECONDS = 120
_SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Execution.PreviewMethod": "latent2rgb"}

# The page opens a first workflow after the app is ready, which would undo earlier actions.
_READY = """() => {
    const manager = window.app?.extensionManager;
    return window.app?.vueAppReady && manager.workflow.activeWorkflow && !manager.spinner;
}"""
_NODES = """() => window.app.graph._nodes.map(node => ({
    id: node.id, type: node.type, title: node.title, mode: node.mode,
    known: node.type in window.LiteGraph.registered_node_types,
    widgets: Object.fromEntries(
        (node.widgets ?? []).filter(widget => widget.serialize !== false).map(widget => [widget.name, widget.value])),
}))"""
_AS_WORKFLOW = """async prompt => {
    await window.app.loadApiJson(prompt, "prompt");
    return window.app.graph.serialize();
}"""
_OVERLAPS = """() => {
    const title = window.LiteGraph.NODE_TITLE_HEIGHT;
    const box = node => {
        const [width, height] = node.computeSize();
        const [x, y] = node.pos;
        return [x, y - title, x + node.size[0], y + Math.max(node.size[1], height)];
    };
    const nodes = window.app.graph._nodes.map(node => [node.title, ...box(node)]);
    return nodes.flatMap((a, index) => nodes.slice(index + 1)
        .filter(b => a[1] < b[3] && b[1] < a[3] && a[2] < b[4] && b[2] < a[4]).map(b => `${a[0]} and ${b[0]}`));
}"""
_FOLLOW = """() => {
    window.dreamvideoRun = new Promise(resolve => {
        for (const end of ["execution_success", "execution_error", "execution_interrupted"])
            window.app.api.addEventListener(end, event => resolve([end, event.detail]), {once: true});
    });
}"""
_SHOW = """([ids, margin]) => {
    const nodes = ids.map(id => window.app.graph.getNodeById(id));
    const title = window.LiteGraph.NODE_TITLE_HEIGHT;
    const left = Math.min(...nodes.map(n => n.pos[0])) - margin, top = Math.min(...nodes.map(n => n.pos[1])) - title - margin;
    const width = Math.max(...nodes.map(n => n.pos[0] + n.size[0])) + margin - left;
    const height = Math.max(...nodes.map(n => n.pos[1] + n.size[1])) + margin - top;
    const {ds, canvas} = window.app.canvas;
    const frame = canvas.getBoundingClientRect();
    const [x, y] = [frame.left + 80, frame.top + 100];  // beside the side bar, below the menu
    const scale = Math.min(1, (frame.right - x) / width, (frame.bottom - y) / height);
    [ds.scale, ds.offset[0], ds.offset[1]] = [scale, (x - frame.left) / scale - left, (y - frame.top) / scale - top];
    window.app.canvas.setDirty(true, true);
    return {x, y, width: width * scale, height: height * scale};
}"""
_SLOT = """([id, input, name]) => {
    const node = window.app.graph.getNodeById(id);
    const slot = input ? node.findInputSlot(name) : node.findOutputSlot(name);
    const {ds, canvas} = window.app.canvas;
    const [x, y] = node.getConnectionPos(input, slot);
    const frame = canvas.getBoundingClientRect();
    return [(x + ds.offset[0]) * ds.scale + frame.left, (y + ds.offset[1]) * ds.scale + frame.top];
}"""
_DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name));
    const details = {dataTransfer, bubbles: true, cancelable: true, clientX: 800, clientY: 500};
    for (const kind of ["dragenter", "dragover", "drop"])
        window.app.canvas.canvas.dispatchEvent(new DragEvent(kind, details));
}"""


class Canvas:
    """The graph editor of a running server, as a context manager.

    With `nodes_2`, nodes are elements of the page ("Nodes 2.0"), else they are drawn. `page` is Playwright's. `complaints`
    are the browser console's errors about the pack. `Client.run` cannot be used meanwhile: both would run an event loop.
    """

    def __init__(self, server: Server, nodes_2: bool = False):
        self.server = server
        self.nodes_2 = nodes_2
        self.complaints: list[str] = []
        self.page: Page

    def __enter__(self) -> Canvas:
        self._playwright = sync_playwright().start()
        try:
            self._browser = launch(self._playwright)
            self.page = self._browser.new_page(viewport=_SIZE)
            self.page.on("console", self._hear)
            self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
            self.reload()
        except BaseException:
            self._playwright.stop()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._browser.close()
        self._playwright.stop()

    def reload(self, locale: str = "en") -> None:
        """Open the page in a language, with an empty graph."""
        settings = {**_SETTINGS, "Comfy.Locale": locale, "Comfy.VueNodes.Enabled": self.nodes_2}
        self.server.client.post("/settings", settings)
        self.page.goto(self.server.url)
        self._wait_until_ready()
        self.clear()

    def refresh(self) -> None:
        """Load the page again, as a user does: the graph comes back."""
        self.page.reload()
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        self.page.wait_for_function(_READY, timeout=1000 * _START_SECONDS)

    def clear(self) -> None:
        """Remove every node."""
        self.page.evaluate("() => window.app.graph.clear()")

    def command(self, name: str) -> None:
        """Run one of the frontend's commands, as from its menus."""
        self.page.evaluate("name => window.app.extensionManager.command.execute(name)", name)

    def open(self, workflow: dict) -> None:
        """Open a workflow, as if its file had been chosen."""
        self.page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        self.fit()

    def open_prompt(self, prompt: dict[str, dict]) -> None:
        """Open a prompt in API format, as if it had been saved as a workflow."""
        self.open(self.page.evaluate(_AS_WORKFLOW, prompt))

    def open_templates(self) -> None:
        """Show the pack's templates, in a reloaded page: a dialog that is still closing would close this one too."""
        self.reload()
        self.command("Comfy.BrowseTemplates")
        self.page.get_by_role("dialog").get_by_text(PACK_NAME, exact=True).click()

    def template(self, name: str) -> Locator:
        """A card of the template browser."""
        return self.page.get_by_test_id(f"template-workflow-{name}")

    def fit(self) -> None:
        """Show the whole graph."""
        self.command("Comfy.Canvas.FitView")
        self.page.wait_for_timeout(500)  # the view moves gradually

    def picture(self, titles: Sequence[str]) -> bytes:
        """A PNG of the area of the nodes with these titles, at full size if the window allows."""
        ids = [node["id"] for node in self.nodes if node["title"] in titles]
        area = self.page.evaluate(_SHOW, [ids, 16])
        self.page.mouse.move(0, 0)
        self.page.wait_for_timeout(500)  # elements follow the canvas
        return self.page.screenshot(clip=area)

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """All nodes: id, type, title, mode, whether the type is known, and widgets."""
        return self.page.evaluate(_NODES)

    @property
    def prompt(self) -> dict[str, dict]:
        """What Run would send to the server."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def node(self, node_type: str) -> dict[str, Any]:
        """The first node of a type."""
        return next(node for node in self.nodes if node["type"] == node_type)

    @property
    def overlaps(self) -> list[str]:
        """Pairs of nodes that overlap."""
        return self.page.evaluate(_OVERLAPS)

    def set(self, node_id: int, widget: str, value: Any) -> None:
        self.page.evaluate(
            "([id, name, value]) => window.app.graph.getNodeById(id).widgets.find(w => w.name === name).value = value",
            [node_id, widget, value],
        )

    def select(self, node_id: int) -> None:
        self.page.evaluate("id => window.app.canvas.selectNode(window.app.graph.getNodeById(id))", node_id)

    def search(self, words: str) -> Locator:
        """The nodes that the search box offers for these words."""
        box = self.page.get_by_role("dialog").get_by_role("combobox").first
        if not box.is_visible():
            self.command("Workspace.SearchBox.Toggle")
        box.fill(words)
        return self.page.get_by_test_id("result-item")

    def connect(self, source: tuple[int, str], target: tuple[int, str]) -> None:
        """Drag a link from a node's output to another node's input."""
        start, end = (
            self.page.evaluate(_SLOT, [source[0], False, source[1]]),
            self.page.evaluate(_SLOT, [target[0], True, target[1]]),
        )
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=10)
        self.page.mouse.up()

    def drop(self, file: Path) -> None:
        """Drop a file on the canvas."""
        self.page.evaluate(_DROP, [file.name, base64.b64encode(file.read_bytes()).decode()])

    def queue(self) -> None:
        """Press Run."""
        self.page.evaluate(_FOLLOW)
        self.page.get_by_test_id("queue-button").click()

    def wait(self) -> tuple[str, dict]:
        """Wait for the run's last event: `execution_success`, `execution_error` or `execution_interrupted`, and its data."""
        kind, detail = self.page.evaluate("() => window.dreamvideoRun")
        return kind, detail

    def _hear(self, message: ConsoleMessage) -> None:
        about = f"{message.text} {message.location['url']}"
        if message.type == "error" and "dreamvideo" in about.lower() and "api.comfy.org" not in about:
            self.complaints.append(about)


def launch(playwright: Playwright) -> Browser:
    """Headless Chromium; raises `SetupFailed` if there is none."""
    return playwright.chromium.launch(executable_path=_chromium(), args=_ARGUMENTS)


def _chromium() -> str:
    """The program that CHROMIUM names, or the first of the usual names."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise SetupFailed(
            f"no browser: none of {', '.join(_NAMES)} is installed. Install Chromium (Debian: apt-get install chromium), or "
            "name one with the variable CHROMIUM"
        )
    return found
