"""Words for the person at the screen."""

from __future__ import annotations

import logging

from server import PromptServer

from ...dreamvideo_core.consoles import Escaping

log = logging.getLogger("DreamVideo")
log.addFilter(Escaping())

REMARK = "dreamvideo_remark"  # what web/remarks.js draws on the node


def say(node_id: str | None, text: str, about: str = "") -> None:
    """Show `text` on the node that is running and log it, there behind `about`, which the node shows anyway."""
    log.info(f"{about}: {text}" if about else text)
    if node_id is not None:
        PromptServer.instance.send_progress_text(text, node_id)


def remark(*lines: str) -> dict[str, list[str]]:
    """What a node says of its result, as `ui` of its `io.NodeOutput`: it stays on the node when the run has ended."""
    return {REMARK: list(lines)}
