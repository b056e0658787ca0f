#!/usr/bin/env python3
"""Check by import-linter that imports point one way. Its contracts stand in pyproject.toml, under [tool.importlinter].

    python3 scripts/comfyui.py exec python scripts/lint_imports.py

import-linter needs a package that Python can import, and follows relative imports inside that package only. The folder of
the repository may have any name, and `scripts` and `benchmarks` are no packages. So the sources are copied into a temporary
folder as one package, `comfyui_dreamvideo`, and linted there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "comfyui_dreamvideo"


def main() -> int:
    """Lint this repository and return the exit status of import-linter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_sources(folder)
        return lint(folder).returncode


def copy_sources(folder: Path) -> None:
    """Lay the repository's sources into `folder` as one package, and the contracts beside it."""
    sources = [REPOSITORY / "__init__.py"]
    for room in ("nodes", "dreamvideo_core", "scripts", "benchmarks"):
        sources += (REPOSITORY / room).rglob("*.py")
    for source in sources:
        copy = folder / PACKAGE / source.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        (copy.parent / "__init__.py").touch()
        shutil.copyfile(source, copy)
    shutil.copyfile(REPOSITORY / "pyproject.toml", folder / "pyproject.toml")


def lint(folder: Path, **options) -> subprocess.CompletedProcess:
    """Run import-linter on what `copy_sources` has laid into `folder`, with options of `subprocess.run`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=folder, env=environment, **options)


if __name__ == "__main__":
    sys.exit(main())
