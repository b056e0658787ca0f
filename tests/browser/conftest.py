"""A browser on the default ComfyUI: one a module, an empty canvas a test. And a server with the newest page."""

from collections.abc import Iterator

import pytest
from comfy_host import frontends, releases
from comfy_host.base import BaseDirectory
from comfy_host.browser import Canvas
from comfy_host.server import Server


@pytest.fixture(scope="session")
def server_newest_frontend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The default ComfyUI, which shows the newest frontend in place of its own."""
    base = BaseDirectory(tmp_path_factory.mktemp("comfyui_newest_frontend"))
    with Server(releases.locate(), base, page=frontends.fetch(frontends.NEWEST)) as running:
        yield running


@pytest.fixture(scope="module")
def opened(server: Server) -> Iterator[Canvas]:
    with Canvas(server) as canvas:
        yield canvas


@pytest.fixture
def canvas(opened: Canvas) -> Canvas:
    opened.complaints.clear()
    opened.clear()
    return opened
