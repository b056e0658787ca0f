"""Words for the person at the screen."""

from __future__ import annotations

import logging

from server import PromptServer

log = logging.getLogger("DreamVideo")


def say(node_id: str | None, text: str, about: str = "") -> None:
    """Show `text` on the node that is running and log it, there behind `about`, which the node shows anyway."""
    log.info(f"{about}: {text}" if about else text)
    if node_id is not None:
        PromptServer.instance.send_progress_text(text, node_id)
