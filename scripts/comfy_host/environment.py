"""The Python environment below the repository: torch, ComfyUI's requirements and the pack itself.

pip installs uv, which creates the environment and installs the packages. A stamp, written last, holds a hash of the
requirements: a missing one means an unfinished environment, a different one changed requirements.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from .console import say
from .errors import HostError, SetupFailed
from .locks import alone
from .paths import CONSTRAINTS, ENVIRONMENT, HOST, RELEASES, REPOSITORY, REQUIREMENTS, TOOLS

UV = "uv==0.13.9"
EXTRAS = "cli,train,test"
STAMP = ENVIRONMENT / "requirements.sha256"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")

# Python keeps what it has compiled below `.host/`, whatever the surroundings say: nothing is written beside the sources of a
# ComfyUI, and a process that imports torch and transformers starts in half of the time.
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(HOST / "pycache")}


def prepare(comfyui: Path) -> None:
    """Create the environment, or update it, for the ComfyUI in the folder `comfyui`."""
    ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
    # Locked, since a second process would delete the first one's unfinished environment.
    with alone(ENVIRONMENT.parent / "environment.lock"):
        _prepare(comfyui)


def _prepare(comfyui: Path) -> None:
    requirements = [REQUIREMENTS, comfyui / "requirements.txt"]
    constraints = [CONSTRAINTS] if RELEASES in comfyui.parents else []
    stamp = fingerprint([*requirements, *constraints, REPOSITORY / "pyproject.toml"])
    if STAMP.is_file() and STAMP.read_text() == stamp:
        return
    uv = _get_uv()
    if not STAMP.is_file():
        _create(uv)
    STAMP.unlink(missing_ok=True)
    say("installing packages (a first time takes some minutes)")
    _call(
        [
            uv,
            "pip",
            "install",
            "--python",
            PYTHON,
            "--editable",
            f".[{EXTRAS}]",
            *_quiet(),
            *_option("--requirement", requirements),
            *_option("--constraint", constraints),
        ],
        "installing the packages",
    )
    STAMP.write_text(stamp)


def fingerprint(files: list[Path]) -> str:
    """A hash of the files that decide what is installed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def is_active() -> bool:
    """Whether this process runs inside the environment."""
    return Path(sys.prefix).resolve() == ENVIRONMENT.resolve()


def variables() -> dict[str, str]:
    """The environment variables of a process inside the environment."""
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": str(ENVIRONMENT), **COMPILED}


def execute(command: list[str]) -> NoReturn:
    """Replace this process by `command` inside the environment, so that signals and exit status are the command's."""
    env = variables()
    program = shutil.which(command[0], path=env["PATH"])
    if program is None:
        raise HostError(f"there is no command named {command[0]}")
    if os.name == "nt":
        sys.exit(subprocess.call([program, *command[1:]], env=env))
    os.execve(program, command, env)


def _create(uv: Path) -> None:
    """Create an empty environment, and delete what an interrupted attempt left."""
    say("making a Python environment")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    base_python = getattr(sys, "_base_executable", sys.executable)
    _call([uv, "venv", "--seed", "--python", base_python, ENVIRONMENT, *_quiet()], "making the environment")


def _get_uv() -> Path:
    """Have pip install uv, which is many times faster; returns its program."""
    uv = TOOLS / "bin" / ("uv.exe" if os.name == "nt" else "uv")
    if not uv.is_file():
        say("fetching the installer")
        _call(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--root-user-action",
                "ignore",
                "--upgrade",
                "--target",
                TOOLS,
                UV,
            ],
            f"installing {UV}",
        )
    return uv


def _call(command: list, purpose: str) -> None:
    """Run an installer with its output on stderr."""
    status = subprocess.call([str(part) for part in command], cwd=REPOSITORY, stdout=sys.stderr.fileno())
    if status:
        raise SetupFailed(f"{purpose} failed with exit status {status}; the messages above say why")


def _quiet() -> list[str]:
    """uv's option without progress bars, where stderr is no terminal."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def _option(name: str, values: list[Path]) -> list:
    """The option once for every value."""
    return [part for value in values for part in (name, value)]
