"""Messages to the user: log, text on a node, remarks."""

from __future__ import annotations

import dataclasses
import logging

from comfy_api.latest import io
from server import PromptServer

from ...dreamvideo_core.common.consoles import EscapeFilter

log = logging.getLogger("DreamVideo")
log.addFilter(EscapeFilter())

REMARK = "dreamvideo_remark"  # what web/remarks.js draws on the node

# For the schema of a node with remarks: ComfyUI sends them again when it takes the node's result from its cache. ComfyUI 0.16.3
# lacks the option; there the browser keeps the earlier remarks.
_OPTION = "has_intermediate_output"
KEEPS_REMARKS = {_OPTION: True} if _OPTION in {field.name for field in dataclasses.fields(io.Schema)} else {}


def own_id(node: type[io.ComfyNode]) -> str:
    """The running node's id, or "" if another executor than ComfyUI's calls it without hidden values."""
    return getattr(node.hidden, "unique_id", None) or ""


def say(node_id: str, text: str, about: str = "") -> None:
    """Show `text` on the running node, and log it, there behind `about`. Without a node or a server it is only logged."""
    log.info("%s", f"{about}: {text}" if about else text)
    server = getattr(PromptServer, "instance", None)
    if node_id and server is not None:
        server.send_progress_text(text.encode("utf-8", "replace"), node_id)


def remark(*lines: str) -> dict[str, list[str]]:
    """Remarks on a node's result, as `ui` of its `io.NodeOutput`: they stay on the node until it runs again."""
    return {REMARK: list(lines)}
