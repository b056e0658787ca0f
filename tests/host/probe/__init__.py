"""Nodes for the tests alone."""

import gc
from pathlib import Path

import folder_paths
from safetensors.torch import save_file


class _Saver:
    RETURN_TYPES = ()
    FUNCTION = "save"
    OUTPUT_NODE = True
    CATEGORY = "tests"


class SaveFrames(_Saver):
    """Writes frames exactly; ComfyUI's own savers round them."""

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"frames": ("IMAGE",), "name": ("STRING", {})}}

    def save(self, frames, name: str) -> dict:
        save_file({"frames": frames.contiguous()}, Path(folder_paths.get_output_directory()) / f"{name}.safetensors")
        return {}


class CountModels(_Saver):
    """Writes how many DreamVideo models the process holds."""

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"name": ("STRING", {})}}

    def save(self, name: str) -> dict:
        gc.collect()
        alive = sum(type(thing).__name__ == "DreamVideoModel" for thing in gc.get_objects())
        (Path(folder_paths.get_output_directory()) / f"{name}.txt").write_text(str(alive))
        return {}


class SplitText:
    """A list of texts."""

    RETURN_TYPES = ("STRING",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "split"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"text": ("STRING", {})}}

    def split(self, text: str) -> tuple:
        return (text.split("|"),)


# Two functions of one name: as a pack has them before and after an update.
BRIGHTNESS = {"dark": lambda args: args["denoised"] * 0.5, "bright": lambda args: args["denoised"] * 1.5}


class PatchBrightness:
    """A model with a function of another pack on its guidance."""

    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"model": ("MODEL",), "kind": (list(BRIGHTNESS),)}}

    def patch(self, model, kind: str) -> tuple:
        model = model.clone()
        model.set_model_sampler_post_cfg_function(BRIGHTNESS[kind])
        return (model,)


NODE_CLASS_MAPPINGS = {node.__name__: node for node in (SaveFrames, CountModels, SplitText, PatchBrightness)}
