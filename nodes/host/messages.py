"""Words for the person at the screen."""

from __future__ import annotations

import logging

from server import PromptServer

log = logging.getLogger("DreamVideo")


def say(node_id: str | None, text: str) -> None:
    """Show `text` on the node that is running, and in the log."""
    log.info(text)
    if node_id is not None:
        PromptServer.instance.send_progress_text(text, node_id)
