"""LoadDreamVideo: one file or folder to MODEL, CLIP, VAE and CLIP_VISION."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..dreamvideo_core.models.config import ORDERS, SamplingDefaults
from ..dreamvideo_core.weights.dynamicrafter import VARIANTS
from .host.files import DIFFUSERS, FOLDER, NO_OVERLAY, checkpoint_names, checkpoint_path, last_change, overlay_names
from .host.loader import WEIGHT_DTYPES, Source, load_all
from .host.messages import KEEPS_REMARKS, own_id, remark, say

CATEGORY = "DreamVideo"
NO_VARIANT = "by the file"


class LoadDreamVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadDreamVideo",
            display_name="Load DreamVideo",
            category=CATEGORY,
            description="Loads a DreamVideo model. The first choice ships with the pack and runs on any machine.",
            search_aliases=["dreamvideo loader", "image to video model", "i2v checkpoint"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=checkpoint_names(),
                    tooltip=f"The model. Put your own file, or a diffusers folder of a public text-to-video model, into "
                    f"models/{FOLDER}. Folders in models/{DIFFUSERS} and what Save Checkpoint wrote are listed too.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How the U-Net's weights are kept. `default` lets ComfyUI choose for your device. On a CPU that "
                    "computes in bf16 it is bf16 for models over 200M parameters. fp8 halves the memory of fp16 at some "
                    "loss of quality.",
                ),
                io.Combo.Input(
                    "overlay",
                    options=overlay_names(),
                    default=NO_OVERLAY,
                    optional=True,
                    tooltip="A file of trained layers (retention branch and temporal layers), laid over the model that they "
                    "were trained on. `none` for a model that is whole.",
                ),
                io.Boolean.Input(
                    "cuda_graphs",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="On an NVIDIA GPU: record the model's passes in the first steps of a run and replay them. The clip "
                    "is the same, in less time where the GPU is fast for the size. The model must fit into its memory whole.",
                ),
                io.Combo.Input(
                    "variant",
                    options=[NO_VARIANT, *VARIANTS],
                    default=NO_VARIANT,
                    optional=True,
                    advanced=True,
                    tooltip="Which DynamiCrafter a file holds, where neither its weights nor its name say it. Other models "
                    "need no choice.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            outputs=[
                io.Model.Output(tooltip="The U-Net and, where the file has one, the image retention branch."),
                io.Clip.Output(tooltip="The text encoder for the prompts."),
                io.Vae.Output(tooltip="Turns latents into frames: for VAE Decode, and for Retention Encode."),
                io.ClipVision.Output(
                    tooltip="For Retention Encode, where the file holds a model that sees the picture by CLIP (DynamiCrafter)."
                ),
            ],
            **KEEPS_REMARKS,
        )

    @classmethod
    def execute(
        cls,
        checkpoint: str,
        weight_dtype: str = "default",
        overlay: str = NO_OVERLAY,
        cuda_graphs: bool = False,
        variant: str = NO_VARIANT,
    ) -> io.NodeOutput:
        source = Source(checkpoint_path(checkpoint), _overlay_path(overlay), None if variant == NO_VARIANT else variant)
        loaded = load_all(source, weight_dtype, cuda_graphs)
        remarks = [*loaded.shortcomings, _made_for(loaded.model.model.config.sampling)]
        say(own_id(cls), "; ".join(remarks), about=checkpoint)
        return io.NodeOutput(loaded.model, loaded.clip, loaded.vae, loaded.clip_vision, ui=remark(*remarks))

    @classmethod
    def fingerprint_inputs(
        cls,
        checkpoint: str,
        weight_dtype: str = "default",
        overlay: str = NO_OVERLAY,
        cuda_graphs: bool = False,
        variant: str = NO_VARIANT,
    ) -> list:
        """Changes when a file changes, so that it is loaded again."""
        paths = checkpoint_path(checkpoint), _overlay_path(overlay)
        return [last_change(path) for path in paths if path is not None]


def _made_for(best: SamplingDefaults) -> str:
    """The model's best settings, for the user to set in other nodes, which do not know the model."""
    words = [
        f"made for {best.width} x {best.height}, {best.num_frames} frames",
        f"{best.steps} steps",
        f"scales {best.text_scale:g} / {best.image_scale:g}",
    ]
    if best.order != ORDERS[0]:
        words.append(f"order {best.order}")
    if best.rescale:
        words.append(f"rescale {best.rescale:g}")
    if best.eta:
        words.append("sampler euler_ancestral")
    return ", ".join(words)


def _overlay_path(name: str) -> Path | None:
    return None if name == NO_OVERLAY else checkpoint_path(name, "overlay")
