"""Words for the person at the screen."""

from __future__ import annotations

import dataclasses
import logging

from comfy_api.latest import io
from server import PromptServer

from ...dreamvideo_core.common.consoles import Escaping

log = logging.getLogger("DreamVideo")
log.addFilter(Escaping())

REMARK = "dreamvideo_remark"  # what web/remarks.js draws on the node

# For the schema of a node with remarks: ComfyUI sends them again when it has the node's result already. 0.16.3 knows no such
# option; there the browser keeps what it was sent before.
_SENT_AGAIN = "has_intermediate_output"
SENT_AGAIN = {_SENT_AGAIN: True} if _SENT_AGAIN in {field.name for field in dataclasses.fields(io.Schema)} else {}


def own_id(node: type[io.ComfyNode]) -> str:
    """The id of the node that is running. It is empty where an executor other than ComfyUI's calls it without hidden values."""
    return getattr(node.hidden, "unique_id", None) or ""


def say(node_id: str, text: str, about: str = "") -> None:
    """Show `text` on the node that is running and log it, there behind `about`, which the node shows anyway.

    It is only logged where the node is not known or where there is no server.
    """
    log.info("%s", f"{about}: {text}" if about else text)
    server = getattr(PromptServer, "instance", None)
    if node_id and server is not None:
        server.send_progress_text(text.encode("utf-8", "replace"), node_id)


def remark(*lines: str) -> dict[str, list[str]]:
    """What a node says of its result, as `ui` of its `io.NodeOutput`: it stays on the node until that runs anew."""
    return {REMARK: list(lines)}
