"""Where checkpoints lie: ComfyUI's `models/dreamvideo` folders, and the one that ships with the pack."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...dreamvideo_core.pipeline import SHIPPED

FOLDER = "dreamvideo"
SHIPPED_NAME = f"{SHIPPED.name} (shipped)"


def register_model_folder() -> None:
    """Let ComfyUI list `models/dreamvideo`; safetensors files only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def checkpoint_names() -> list[str]:
    """What a person can choose, the shipped model first; files that ComfyUI's savers wrote are listed too."""
    own, savers = folder_paths.get_filename_list(FOLDER), folder_paths.get_filename_list("checkpoints")
    return list(dict.fromkeys([SHIPPED_NAME, *own, *(name for name in savers if name.endswith(".safetensors"))]))


def checkpoint_path(name: str) -> Path:
    if name == SHIPPED_NAME:
        return SHIPPED
    for folder in (FOLDER, "checkpoints"):
        found = folder_paths.get_full_path(folder, name)
        if found:
            return Path(found)
    raise FileNotFoundError(
        f"checkpoint is {name!r}, which is in neither models/{FOLDER} nor models/checkpoints. Put the file there, "
        "refresh the page (R), or choose the shipped model."
    )
