"""Writes locales/en/nodeDefs.json from the nodes' schemas, as the source for translators.

python3 scripts/comfyui.py exec python scripts/english_locale.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from comfy_host import releases
from comfy_host.base import BaseDirectory
from comfy_host.in_process import InProcessComfyUI

from dreamvideo_core.common.files import write_text

OUTPUT = Path(__file__).resolve().parent.parent / "locales" / "en" / "nodeDefs.json"


def english(host: InProcessComfyUI) -> dict[str, dict]:
    """Names and tooltips of every visible node, in ComfyUI's format for translations."""
    module = f"custom_nodes.{host.base.pack.name}"
    ours = {name: node for name, node in host.nodes.items() if getattr(node, "RELATIVE_PYTHON_MODULE", "") == module}
    schemas = {name: node.define_schema() for name, node in ours.items()}
    return {name: _texts(schema) for name, schema in schemas.items() if not schema.is_dev_only}


def _texts(schema) -> dict:
    inputs = {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs}
    outputs = {str(n): {"name": o.display_name or o.io_type, "tooltip": o.tooltip} for n, o in enumerate(schema.outputs)}
    return {"display_name": schema.display_name, "description": schema.description, "inputs": inputs, "outputs": outputs}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = InProcessComfyUI(releases.locate(), BaseDirectory(Path(folder)).prepare())
        write_text(OUTPUT, json.dumps(english(host), indent=2, ensure_ascii=False) + "\n")
    print(OUTPUT)


if __name__ == "__main__":
    main()
