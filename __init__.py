"""ComfyUI-DreamVideo: a picture and a sentence become a clip that begins with the picture. ComfyUI's door to the pack."""

from .nodes import comfy_entrypoint

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
