"""LoadDreamVideo: one file to MODEL, CLIP and VAE."""

from __future__ import annotations

from comfy_api.latest import io

from .host.files import FOLDER, checkpoint_names, checkpoint_path
from .host.loader import WEIGHT_DTYPES, load_all

CATEGORY = "DreamVideo"


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
                    tooltip=f"The model file. Put your own into models/{FOLDER}; ComfyUI's checkpoints folder is listed "
                    "too, for models that CheckpointSave wrote.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    tooltip="How the U-Net's weights are kept. `default` lets ComfyUI choose for your device; fp8 "
                    "halves the memory of fp16 at some loss of quality.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The U-Net and, where the file has one, the image retention branch."),
                io.Clip.Output(tooltip="The text encoder for the prompts."),
                io.Vae.Output(tooltip="Turns latents into frames."),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str, weight_dtype: str = "default") -> io.NodeOutput:
        return io.NodeOutput(*load_all(checkpoint_path(checkpoint), weight_dtype))

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str, weight_dtype: str = "default") -> tuple[float, int]:
        """Load again when the file has changed."""
        status = checkpoint_path(checkpoint).stat()
        return status.st_mtime, status.st_size
