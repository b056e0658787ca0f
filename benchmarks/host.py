"""A real ComfyUI for benchmarks: what lies in scripts/, once that is on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server

__all__ = ["BaseDirectory", "InProcessComfyUI", "Server", "comfyui_in_process", "releases"]


def comfyui_in_process(base: Path) -> InProcessComfyUI:
    """The default ComfyUI, with `base` as its base directory and a folder for our models. There can be one in a process."""
    directory = BaseDirectory(base).prepare()
    (directory.models / "dreamvideo").mkdir()
    return InProcessComfyUI(releases.locate(), directory)
