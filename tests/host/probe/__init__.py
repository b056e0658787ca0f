"""Nodes for the tests alone: what frames are exactly, where ComfyUI's own savers round, and how many models are alive."""

import gc
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


class CountModels:
    """Writes how many DreamVideo models the process holds."""

    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"name": ("STRING", {})}}

    def save(self, name: str) -> dict:
        gc.collect()
        alive = sum(type(thing).__name__ == "DreamVideoModel" for thing in gc.get_objects())
        (Path(folder_paths.get_output_directory()) / f"{name}.txt").write_text(str(alive))
        return {}


NODE_CLASS_MAPPINGS = {"SaveFrames": SaveFrames, "CountModels": CountModels}
