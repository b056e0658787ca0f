"""FirstFrameFidelity and VideoMetrics: how close a clip is to its picture, or to another clip."""

from __future__ import annotations

import math
from statistics import fmean

import torch
from comfy_api.latest import io, ui

from ..dreamvideo_core.evaluation.metrics import first_frame_ssim
from ..dreamvideo_core.evaluation.similarity import check_side, embedding_similarity, frame_ssim, reference_per_frame
from ..dreamvideo_core.media.images import FITS, fit_image
from ..dreamvideo_core.media.plot import Curve, frame_plot
from .host.clip_vision import image_embeddings
from .host.messages import KEEPS_REMARKS, own_id, remark, say
from .images import from_comfy, to_comfy
from .loading import CATEGORY


class FirstFrameFidelity(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FirstFrameFidelity",
            display_name="First Frame Fidelity",
            category=CATEGORY,
            description="How like the clip's first frame is to the picture: their structural similarity (FFF_SSIM) and the "
            "similarity of their CLIP embeddings (FFF_CLIP). 1 is the same.",
            search_aliases=["dreamvideo fidelity", "fff_ssim", "fff_clip", "ssim", "measure image retention"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("image", tooltip="The picture the clip was made from."),
                io.Image.Input("frames", tooltip="The decoded clip; its first frame is measured."),
                io.Combo.Input(
                    "fit", options=list(FITS), default="crop",
                    tooltip="How the picture is brought to the clip's size: the same as in Retention Encode.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="A CLIP model from Load CLIP Vision, for FFF_CLIP. Unconnected: FFF_CLIP is not measured.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="FFF_SSIM", tooltip="Structural similarity, at most 1; higher is closer."),
                io.Float.Output(
                    display_name="FFF_CLIP",
                    tooltip="Cosine of the two CLIP embeddings, at most 1; higher is closer. Without clip_vision it is NaN: "
                    "not measured.",
                ),
            ],
            **KEEPS_REMARKS,
        )  # fmt: skip

    @classmethod
    def execute(cls, image: torch.Tensor, frames: torch.Tensor, fit: str = "crop", clip_vision=None) -> io.NodeOutput:
        first = from_comfy(frames[:1], "frames")
        check_side("frames", first)
        picture = fit_image(from_comfy(image[:1]), *first.shape[-2:], fit)
        similarity = float(first_frame_ssim(first, picture))
        clip_similarity = math.nan if clip_vision is None else _clip_similarity(clip_vision, first, picture)[0]
        shown = "is not measured: connect clip_vision" if clip_vision is None else f"{clip_similarity:.3f}"
        text = f"FFF_SSIM {similarity:.3f}, FFF_CLIP {shown}"
        say(own_id(cls), text)
        return io.NodeOutput(similarity, clip_similarity, ui=remark(text))


class VideoMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VideoMetrics",
            display_name="Video Metrics",
            category=CATEGORY,
            description="How like each frame of a clip is to a picture or to the frames of another clip, as a plot.",
            search_aliases=["dreamvideo metrics", "ssim per frame", "compare clips", "video quality", "plot similarity"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("frames", tooltip="The decoded clip."),
                io.Image.Input(
                    "reference",
                    tooltip="What the frames are compared with, of the same size: one picture for all, or as many frames.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="A CLIP model from Load CLIP Vision: the plot shows the similarity of CLIP embeddings too.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="mean_SSIM",
                    tooltip="Structural similarity, the mean of all frames, at most 1; higher is closer.",
                ),
                io.Image.Output(display_name="plot", tooltip="The similarity of each frame as curves."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, frames: torch.Tensor, reference: torch.Tensor, clip_vision=None) -> io.NodeOutput:
        clip = from_comfy(frames, "frames")
        check_side("frames", clip)
        picture = from_comfy(reference, "reference")
        found = {"SSIM": frame_ssim(clip, reference_per_frame(picture, clip)).tolist()}
        if clip_vision is not None:
            found["CLIP"] = _clip_similarity(clip_vision, clip, picture)
        curves = [Curve(f"{name}, mean {fmean(values):.3f}", values) for name, values in found.items()]
        plot = to_comfy(frame_plot(curves))
        lines = [curve.label for curve in curves]
        say(own_id(cls), "; ".join(lines))
        return io.NodeOutput(fmean(found["SSIM"]), plot, ui={**ui.PreviewImage(plot, cls=cls).as_dict(), **remark(*lines)})


def _clip_similarity(clip_vision, frames: torch.Tensor, pictures: torch.Tensor) -> list[float]:
    """The cosine of CLIP embeddings of each frame (T, 3, H, W) and one picture, or its own of T."""
    embedded = [image_embeddings(clip_vision, to_comfy(images)) for images in (frames, pictures)]
    return embedding_similarity(*embedded).tolist()
