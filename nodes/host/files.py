"""Where files lie: ComfyUI's `models/dreamvideo` and `models/diffusers` folders, and what ships with the pack."""

from __future__ import annotations

import shutil
from pathlib import Path

import folder_paths

from ...dreamvideo_core.files import atomic
from ...dreamvideo_core.pipeline import SHIPPED
from ...dreamvideo_core.sources import model_folder
from .messages import log

FOLDER, DIFFUSERS, SAVERS = "dreamvideo", "diffusers", "checkpoints"
SHIPPED_NAME = f"{SHIPPED.name} (shipped)"
NO_OVERLAY = "none"
# Not "examples": ComfyUI would look for workflows there and no longer in "workflows".
_PICTURES = Path(__file__).parents[2] / "pictures"


def register_model_folder() -> None:
    """Let ComfyUI list `models/dreamvideo`; safetensors files only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def offer_pictures() -> None:
    """Put the pictures of the example workflows into ComfyUI's input folder, where they are missing."""
    folder = Path(folder_paths.get_input_directory())
    for picture in _PICTURES.glob("*.png"):
        if (folder / picture.name).exists():
            continue
        try:
            with atomic(folder / picture.name) as temporary:
                shutil.copyfile(picture, temporary)
        except OSError as error:
            log.warning(f"{picture.name}, a picture of the example workflows, cannot be put into {folder}: {error}")


def checkpoint_names() -> list[str]:
    """What a person can choose as a model, the shipped one first."""
    return [SHIPPED_NAME, *_choices()]


def overlay_names() -> list[str]:
    return [NO_OVERLAY, *(name for name, path in _choices().items() if path.is_file())]


def checkpoint_path(name: str, input_name: str = "checkpoint") -> Path:
    path = SHIPPED if name == SHIPPED_NAME else _choices().get(name)
    if path is None:
        raise FileNotFoundError(
            f"{input_name} is {name!r}, which is in none of models/{FOLDER}, models/{DIFFUSERS} and models/{SAVERS}. Put it "
            "there and refresh the page (R), or choose another."
        )
    return path


def last_change(path: Path) -> tuple[float, int]:
    """The newest time and the size in bytes of a file, or of a folder's files."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    statuses = [file.stat() for file in files]
    return max(s.st_mtime for s in statuses), sum(s.st_size for s in statuses)


def _choices() -> dict[str, Path]:
    """Path by the name that is shown: our folder's files and diffusers folders, and what ComfyUI's savers wrote.

    Where a name is in two places, the later one says where it is.
    """
    folders = [(kind, name, path) for kind in (FOLDER, DIFFUSERS) for name, path in _model_folders(kind)]
    inside = {path for _, _, path in folders}
    found = [(FOLDER, name, path) for name, path in _files(FOLDER) if inside.isdisjoint(path.parents)]
    found += folders
    found += [(SAVERS, name, path) for name, path in _files(SAVERS) if name.endswith(".safetensors")]
    choices: dict[str, Path] = {}
    for kind, name, path in found:
        choices[f"{name} ({kind})" if name in choices else name] = path
    return choices


def _files(kind: str) -> list[tuple[str, Path]]:
    paths = {name: folder_paths.get_full_path(kind, name) for name in folder_paths.get_filename_list(kind)}
    return [(name, Path(path)) for name, path in paths.items() if path is not None]


def _model_folders(kind: str) -> list[tuple[str, Path]]:
    """Folders of models in diffusers' layout, or in the hub's cache, right below ComfyUI's folders of that kind."""
    roots = [Path(root) for root in folder_paths.get_folder_paths(kind)]
    return [(p.name, p) for root in roots if root.is_dir() for p in sorted(root.iterdir()) if p.is_dir() and model_folder(p)]
