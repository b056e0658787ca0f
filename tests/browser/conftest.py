"""A browser on the default ComfyUI: one a module, an empty canvas a test."""

from collections.abc import Iterator

import pytest
from comfy_host.browser import Canvas
from comfy_host.server import Server


@pytest.fixture(scope="module")
def opened(server: Server) -> Iterator[Canvas]:
    with Canvas(server) as canvas:
        yield canvas


@pytest.fixture
def canvas(opened: Canvas) -> Canvas:
    opened.complaints.clear()
    opened.clear()
    return opened
