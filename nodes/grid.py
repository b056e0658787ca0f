"""ClipGrid: clips side by side under captions."""

from __future__ import annotations

import re

import torch
from comfy_api.latest import io

from ..dreamvideo_core.common.checks import InputError
from ..dreamvideo_core.media.fonts import undrawable
from ..dreamvideo_core.media.grid import clip_grid, film_strip, pick_frames
from ..dreamvideo_core.media.images import fit_image
from .host.messages import KEEPS_REMARKS, remark
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
            **KEEPS_REMARKS,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, clips: io.Autogrow.Type, captions: str, columns: int, show: str, frames: str, image: torch.Tensor | None = None
    ) -> io.NodeOutput:
        head = None if image is None else from_comfy(image[:1])
        texts = captions.rstrip("\n").split("\n") if captions.strip() else []
        if show == "strip":
            numbers = _parse_numbers(frames)
            picked = [from_comfy(pick_frames(clip, numbers), name) for name, clip in clips.items()]
            cells = [film_strip(clip, range(len(numbers)), head) for clip in picked]
        else:
            cells = [from_comfy(clip, name) for name, clip in clips.items()]
            if head is not None:
                cells = [fit_image(head, *cells[0].shape[-2:], "pad"), *cells]
                texts = ["", *texts]
        return io.NodeOutput(to_comfy(clip_grid(cells, texts, columns)), ui=_font_remark(texts))


def _font_remark(captions: list[str]) -> dict | None:
    """A remark that names the captions which no font of this machine can show."""
    captions = undrawable(captions)
    if not captions:
        return None
    return remark("No font here has all letters of these captions; install one, such as Noto Sans.", *captions)


def _parse_numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in re.split(r"[\s,]+", text) if word]
    except ValueError:
        raise InputError(f'frames is {text!r}; allowed: whole numbers, such as "0 1 2 3 -1"') from None
