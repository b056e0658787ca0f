"""A real ComfyUI for benchmarks: what lies in scripts/, once that is on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.in_process import InProcessComfyUI
from comfy_host.server import Server

__all__ = ["BaseDirectory", "InProcessComfyUI", "Server", "releases"]
