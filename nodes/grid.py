"""ClipGrid: clips beside each other under their captions."""

from __future__ import annotations

import re

import torch
from comfy_api.latest import io

from ..dreamvideo_core.media.fonts import cannot_be_drawn
from ..dreamvideo_core.media.grid import clip_grid, film_strip, pick_frames
from ..dreamvideo_core.media.images import fit_image
from .host.messages import SENT_AGAIN, remark
from .images import from_comfy, to_comfy
from .loading import CATEGORY

MAX_CLIPS = 64
SHOWS = ("moving", "strip")


class ClipGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        clips = io.Autogrow.TemplatePrefix(io.Image.Input("clip"), prefix="clip", min=1, max=MAX_CLIPS)
        return io.Schema(
            node_id="ClipGrid",
            display_name="Clip Grid",
            category=CATEGORY,
            description="Clips side by side under captions: playing together, or each as a row of single frames.",
            search_aliases=["dreamvideo grid", "compare videos", "side by side", "xy plot", "contact sheet", "film strip"],
            inputs=[
                io.Autogrow.Input("clips", template=clips, tooltip="The frames of each clip, row by row."),
                io.String.Input(
                    "captions", multiline=True, default="",
                    tooltip="One line for each clip, in order; an empty line leaves that clip without.",
                ),
                io.Int.Input("columns", default=2, min=1, max=MAX_CLIPS, tooltip="How many clips stand side by side."),
                io.Combo.Input(
                    "show", options=list(SHOWS), default="moving",
                    tooltip="moving: a clip that plays all clips together. strip: one picture, with some frames of each clip.",
                ),
                io.String.Input(
                    "frames", default="0 1 2 3 -1",
                    tooltip="Which frames a strip shows, counted from 0; -1 is the last.",
                ),
                io.Image.Input(
                    "image", optional=True,
                    tooltip="Shown first: as a clip that stands still, or at the head of every strip.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The frames of the grid, or the one picture.")],
            **SENT_AGAIN,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, clips: io.Autogrow.Type, captions: str, columns: int, show: str, frames: str, image: torch.Tensor | None = None
    ) -> io.NodeOutput:
        head = None if image is None else from_comfy(image[:1])
        texts = captions.rstrip("\n").split("\n") if captions.strip() else []
        if show == "strip":
            numbers = _numbers(frames)
            picked = [from_comfy(pick_frames(clip, numbers), name) for name, clip in clips.items()]
            parts = [film_strip(part, range(len(numbers)), head) for part in picked]
        else:
            parts = [from_comfy(clip, name) for name, clip in clips.items()]
            if head is not None:
                parts = [fit_image(head, *parts[0].shape[-2:], "pad"), *parts]
                texts = ["", *texts]
        return io.NodeOutput(to_comfy(clip_grid(parts, texts, columns)), ui=_letters_remark(texts))


def _letters_remark(captions: list[str]) -> dict | None:
    """The captions that no font here can draw, for the node's own text."""
    captions = cannot_be_drawn(captions)
    if not captions:
        return None
    return remark("No font here has all letters of these captions; install one, such as Noto Sans.", *captions)


def _numbers(text: str) -> list[int]:
    found = [word for word in re.split(r"[\s,]+", text) if word]
    try:
        return [int(word) for word in found]
    except ValueError:
        raise ValueError(f'frames is {text!r}; allowed: whole numbers, such as "0 1 2 3 -1"') from None
