"""ComfyUI inside this process, loaded as its own `main.py` does, but without a server."""

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .base import BaseDirectory
from .server import device_arguments


class InProcessComfyUI:
    """ComfyUI's modules with this pack among its nodes; at most one per process.

    `nodes` are node classes by id, `pack` is the pack's module, `base` the base directory.
    """

    def __init__(self, comfyui: Path, base: BaseDirectory):
        self.base = base
        _make_importable(comfyui)
        _configure(base)
        self.nodes = _load_nodes(base.pack)
        self.pack = sys.modules[_module_name(base.pack)]

    def module(self, name: str) -> ModuleType:
        """A module of the pack as ComfyUI loaded it, by its name inside the pack, such as `nodes.host.guider`."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def call(self, node_id: str, /, **inputs: Any) -> tuple:
        """Run one node as the executor does; returns its outputs."""
        node = self.nodes[node_id]
        with torch.inference_mode():
            if hasattr(node, "PREPARE_CLASS_CLONE"):
                return node.PREPARE_CLASS_CLONE(None).EXECUTE_NORMALIZED(**inputs).args
            return getattr(node(), node.FUNCTION)(**inputs)


def _make_importable(comfyui: Path) -> None:
    """Put ComfyUI first on the path, since its `nodes`, `server` and `utils` are top-level modules."""
    foreign = sys.modules.get("nodes")
    if foreign is not None:
        raise RuntimeError(f"a module named `nodes` was imported before ComfyUI's: {foreign}")
    sys.path.insert(0, str(comfyui))


def _configure(base: BaseDirectory) -> None:
    """Set ComfyUI's options before the modules that read them are imported. It does not parse pytest's own."""
    from comfy import cli_args

    cli_args.args.cpu = "--cpu" in device_arguments()
    cli_args.args.base_directory = str(base.root)


def _load_nodes(pack: Path) -> dict[str, type]:
    """Have ComfyUI load its own nodes, then the pack; returns all node classes by id."""
    import server

    import nodes

    server.PromptServer(asyncio.new_event_loop())
    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    if not asyncio.run(nodes.load_custom_node(str(pack), module_parent="custom_nodes")):
        raise RuntimeError("ComfyUI could not load the pack; the captured log says why")
    return nodes.NODE_CLASS_MAPPINGS


def _module_name(pack: Path) -> str:
    """The pack's name in `sys.modules`, as ComfyUI derives it."""
    return str(pack).replace(".", "_x_")
