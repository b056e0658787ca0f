"""Files of the Python package index, downloaded by pip and verified."""

import hashlib
import subprocess
import sys
from pathlib import Path

from .errors import SetupFailed


def download(requirement: str, folder: Path, *options: str) -> Path:
    """Have pip download the file of a requirement such as `name==1.0`, without dependencies."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *options, requirement]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    files = list(folder.iterdir())
    if result.returncode or len(files) != 1:
        raise SetupFailed(f"{requirement} could not be downloaded:\n{result.stderr.strip()}")
    return files[0]


def verify(file: Path, sha256: str) -> None:
    """Raise `SetupFailed` for a file with another hash than the pinned one."""
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != sha256:
        raise SetupFailed(f"{file.name} is not the pinned file: its SHA-256 is {actual}, expected {sha256}")
