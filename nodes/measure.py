"""FirstFrameFidelity: how close a clip's first frame is to the picture it was made from."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..dreamvideo_core.evaluation.metrics import first_frame_ssim
from ..dreamvideo_core.images import FITS, fit_image
from .images import from_comfy
from .loading import CATEGORY


class FirstFrameFidelity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FirstFrameFidelity",
            display_name="First Frame Fidelity",
            category=CATEGORY,
            description="FFF_SSIM: the structural similarity of the picture and the clip's first frame. 1 is the same.",
            search_aliases=["dreamvideo fidelity", "fff_ssim", "ssim", "measure image retention"],
            inputs=[
                io.Image.Input("image", tooltip="The picture the clip was made from."),
                io.Image.Input("frames", tooltip="The decoded clip; its first frame is measured."),
                io.Combo.Input(
                    "fit", options=list(FITS), default="crop",
                    tooltip="How the picture is brought to the clip's size: the same as in Retention Encode.",
                ),
            ],
            outputs=[io.Float.Output(display_name="FFF_SSIM", tooltip="Structural similarity, at most 1; higher is closer.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: torch.Tensor, frames: torch.Tensor, fit: str = "crop") -> io.NodeOutput:
        first = from_comfy(frames[:1], "frames")
        picture = fit_image(from_comfy(image[:1]), *first.shape[-2:], fit)
        return io.NodeOutput(float(first_frame_ssim(first, picture)))
