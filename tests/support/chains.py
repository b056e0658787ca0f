"""Chains by the API: their graphs, and what became of their stages."""

from __future__ import annotations

from comfy_host.execution import Execution
from graphs import FRAMES, SHIPPED, SIZE, STEPS, node

PICTURE = "dreamvideo_two_sprites.png"
ONE, TWO, THREE = "the red circle moves left", "the red circle moves up", "the blue square grows"


def chain(*sentences: str, picture: str | None = PICTURE, **options) -> dict:
    """Loader "model", "chain", and both of its outputs saved exactly as "frames" and "hand_overs"."""
    inputs = {
        "prompts": "\n".join(sentences), "negative": "", "width": SIZE, "height": SIZE, "fit": "crop", "frames": FRAMES,
        "seed": 3, "seeds": "", "steps": STEPS, "text_scale": 2.0, "image_scale": 1.5, "order": "text_first",
        "sampler": "ddim", "scheduler": "simple", "rescale": 0.0, "seam": "keep", "colour_anchor": "off",
        "save_stages": False, "folder": "chain", **options,
    }  # fmt: skip
    graph = {
        "model": node("LoadDreamVideo", checkpoint=SHIPPED, weight_dtype="default"),
        "chain": node("VideoChain", model=["model", 0], clip=["model", 1], vae=["model", 2], **inputs),
        "frames": node("SaveFrames", frames=["chain", 0], name="frames"),
        "hand_overs": node("SaveFrames", frames=["chain", 1], name="hand_overs"),
    }
    if picture is not None:
        graph["picture"] = node("LoadImage", image=picture)
        graph["chain"]["inputs"]["image"] = ["picture", 0]
    return graph


def sampled(execution: Execution) -> list[int]:
    """The stages that were sampled."""
    return [int(node.rsplit(".stage", 1)[1].split(".")[0]) for node in execution.executed if node.endswith(".sampler")]


def remarks(execution: Execution) -> list[str]:
    """What the hidden nodes of a chain say for good; the visible one lists the stages."""
    said = (report.get("dreamvideo_remark", []) for node, report in execution.outputs.items() if node.endswith(".keep"))
    return [line for lines in said for line in lines]
