"""The contracts on imports in pyproject.toml: this repository keeps them, and each is broken by an import that it forbids."""

import re
import shutil
from pathlib import Path

import lint_imports
import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOMS = "rooms of the core, upper above lower"
REPOSITORY = "scripts and benchmarks above nodes above the core"
HOST = "nodes above nodes.host"
COMFYUI = "nodes know comfy_api, only nodes.host knows the rest of ComfyUI"
CORE = "the core runs without ComfyUI"
PACKAGES = "nodes need no package that ComfyUI lacks"
RELATIVE = "relative imports inside the pack"

# An import, where it is planted, and the one contract that it breaks. Imports inside functions count like others.
PLANTED = [
    ("dreamvideo_core/common/checks.py", "from ..models import config", ROOMS),
    ("dreamvideo_core/models/config.py", "from ..sprites import scene", ROOMS),
    ("dreamvideo_core/media/grid.py", "from ..weights import tensor_files", ROOMS),
    ("dreamvideo_core/sampling/guidance.py", "def f():\n    from ..evaluation import metrics", ROOMS),
    ("dreamvideo_core/media/grid.py", "from ...nodes import images", REPOSITORY),
    ("nodes/grid.py", "from ..scripts.comfy_host import console", REPOSITORY),
    ("nodes/host/files.py", "from ..images import from_comfy", HOST),
    ("nodes/grid.py", "import comfy.utils", COMFYUI),
    ("nodes/grid.py", "from folder_paths import models_dir", COMFYUI),
    ("dreamvideo_core/training/pace.py", "from comfy_api.latest import io", CORE),
    ("nodes/grid.py", "from ..dreamvideo_core.common.progress import columns", PACKAGES),
    ("nodes/grid.py", "from ..dreamvideo_core.cli import options", PACKAGES),
    ("dreamvideo_core/training/pace.py", "from dreamvideo_core.common import checks", RELATIVE),
    ("nodes/grid.py", "from comfy_host import paths", RELATIVE),
]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    lint_imports.copy_sources(folder)
    return folder


def _broken(folder: Path) -> list[str]:
    """The contracts that import-linter finds broken."""
    result = lint_imports.lint(folder, capture_output=True, text=True)
    broken = re.findall(r"^(.+) BROKEN\b", result.stdout, re.MULTILINE)
    assert result.returncode == (1 if broken else 0), result.stdout + result.stderr
    return broken


def test_the_repository_keeps_all_contracts(copied: Path):
    assert _broken(copied) == []


@pytest.mark.parametrize(("file", "statement", "contract"), PLANTED)
def test_an_import_breaks_its_contract(copied: Path, file: str, statement: str, contract: str):
    planted = copied / lint_imports.PACKAGE / file
    before = planted.read_text(encoding="utf-8")
    planted.write_text(f"{before}\n{statement}\n", encoding="utf-8")
    try:
        assert _broken(copied) == [contract]
    finally:
        planted.write_text(before, encoding="utf-8")


def test_a_room_that_no_layer_names_is_found(copied: Path):
    room = copied / lint_imports.PACKAGE / "dreamvideo_core" / "another"
    room.mkdir()
    (room / "__init__.py").touch()
    assert _broken(copied) == [ROOMS]
    shutil.rmtree(room)


def test_each_contract_has_an_import_that_breaks_it():
    configuration = tomllib.loads((lint_imports.REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = [contract["name"] for contract in configuration["tool"]["importlinter"]["contracts"]]
    assert sorted(contracts) == sorted({contract for _, _, contract in PLANTED})
