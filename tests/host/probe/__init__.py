"""A node for the tests alone: writes frames exactly, where ComfyUI's own savers would round them."""

from pathlib import Path

import folder_paths
from safetensors.torch import save_file


class SaveFrames:
    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"frames": ("IMAGE",), "name": ("STRING", {})}}

    def save(self, frames, name: str) -> dict:
        save_file({"frames": frames.contiguous()}, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return {}


NODE_CLASS_MAPPINGS = {"SaveFrames": SaveFrames}
