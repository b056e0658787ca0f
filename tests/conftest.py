"""Real ComfyUI hosts for all tests. Each is started once, when a test first asks for it.

- `server`: the default ComfyUI (or the one that COMFYUI_PATH names) as a server process;
- `server_0_16_3`: the oldest ComfyUI that the pack supports;
- `host`: the default ComfyUI loaded into the test process, for tests at the level of objects.

All have base directories of their own, in which this repository is linked as a custom node pack.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server

PROBE = Path(__file__).parent / "host" / "probe"


def pytest_collection_finish() -> None:
    """Leave what the imports have made out of garbage collections, of which training makes many: a fifth of the time."""
    gc.collect()
    gc.freeze()


def _base(root: Path) -> BaseDirectory:
    """A base directory that has the tests' own node too."""
    base = BaseDirectory(root).prepare()
    (base.custom_nodes / PROBE.name).symlink_to(PROBE, target_is_directory=True)
    return base


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the default ComfyUI."""
    with Server(releases.locate(), _base(tmp_path_factory.mktemp("comfyui"))) as running:
        yield running


@pytest.fixture(scope="session")
def server_0_16_3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of ComfyUI 0.16.3."""
    with Server(releases.locate("0.16.3"), _base(tmp_path_factory.mktemp("comfyui_0_16_3"))) as running:
        yield running


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> InProcessComfyUI:
    """The default ComfyUI in this process. Import `comfy` in the test, after asking for this fixture."""
    base = BaseDirectory(tmp_path_factory.mktemp("comfyui_in_process")).prepare()
    return InProcessComfyUI(releases.locate(), base)
