"""The Python environment below the repository: torch, ComfyUI's requirements and the pack itself.

pip brings uv, uv makes the environment and fills it. A stamp, written last, tells a finished environment from one
whose making was interrupted, and a fitting one from one whose requirements have changed since.
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
    """Make the environment, or bring it up to date, for the ComfyUI in the folder `comfyui`."""
    ENVIRONMENT.parent.mkdir(parents=True, exist_ok=True)
    # Of two processes the second would take the first one's unfinished environment for a broken one.
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
    """One hash over the contents of the files that decide what is installed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def is_active() -> bool:
    """Whether this very process runs inside the environment."""
    return Path(sys.prefix).resolve() == ENVIRONMENT.resolve()


def variables() -> dict[str, str]:
    """The variables of a process that runs inside the environment."""
    path = os.pathsep.join([str(SCRIPTS), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "VIRTUAL_ENV": str(ENVIRONMENT), **COMPILED}


def execute(command: list[str]) -> NoReturn:
    """Become `command` inside the environment: same process, hence same signals and exit status."""
    scope = variables()
    program = shutil.which(command[0], path=scope["PATH"])
    if program is None:
        raise HostError(f"there is no command named {command[0]}")
    if os.name == "nt":
        sys.exit(subprocess.call([program, *command[1:]], env=scope))
    os.execve(program, command, scope)


def _create(uv: Path) -> None:
    """Make an empty environment in place of whatever an interrupted attempt left."""
    say("making a Python environment")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    base_python = getattr(sys, "_base_executable", sys.executable)
    _call([uv, "venv", "--seed", "--python", base_python, ENVIRONMENT, *_quiet()], "making the environment")


def _get_uv() -> Path:
    """Have pip bring uv, which installs the same packages many times faster, and return its program."""
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
    """Run an installer; what it prints goes to stderr."""
    status = subprocess.call([str(part) for part in command], cwd=REPOSITORY, stdout=sys.stderr.fileno())
    if status:
        raise SetupFailed(f"{purpose} failed with exit status {status}; the messages above say why")


def _quiet() -> list[str]:
    """Progress bars are for terminals; elsewhere uv shows errors only."""
    return [] if sys.stderr.isatty() else ["--quiet"]


def _option(name: str, values: list[Path]) -> list:
    """The option once for every value."""
    return [part for value in values for part in (name, value)]
