"""Where checkpoints lie: ComfyUI's `models/dreamvideo` folders, and the one that ships with the pack."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...dreamvideo_core.pipeline import SHIPPED

FOLDER, SAVERS = "dreamvideo", "checkpoints"
SHIPPED_NAME = f"{SHIPPED.name} (shipped)"


def register_model_folder() -> None:
    """Let ComfyUI list `models/dreamvideo`; safetensors files only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def checkpoint_names() -> list[str]:
    """What a person can choose, the shipped model first; files that ComfyUI's savers wrote are listed too."""
    return [SHIPPED_NAME, *_choices()]


def checkpoint_path(name: str) -> Path:
    if name == SHIPPED_NAME:
        return SHIPPED
    found = folder_paths.get_full_path(*_choices()[name]) if name in _choices() else None
    if found:
        return Path(found)
    raise FileNotFoundError(
        f"checkpoint is {name!r}, which is in neither models/{FOLDER} nor models/{SAVERS}. Put the file there, "
        "refresh the page (R), or choose the shipped model."
    )


def _choices() -> dict[str, tuple[str, str]]:
    """Folder and file name for each name that is shown; the savers' file says where it is when both folders have one."""
    choices = {name: (FOLDER, name) for name in folder_paths.get_filename_list(FOLDER)}
    for name in folder_paths.get_filename_list(SAVERS):
        if name.endswith(".safetensors"):
            choices[f"{name} ({SAVERS})" if name in choices else name] = (SAVERS, name)
    return choices
