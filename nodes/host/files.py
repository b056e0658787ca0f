"""Where files lie: ComfyUI's `models/dreamvideo` and `models/diffusers` folders, and what ships with the pack."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import folder_paths

from ...dreamvideo_core.common.files import atomic
from ...dreamvideo_core.sampling.pipeline import SHIPPED
from ...dreamvideo_core.weights.sources import model_folder
from .messages import log

FOLDER, DIFFUSERS, SAVERS = "dreamvideo", "diffusers", "checkpoints"
SHIPPED_NAME = f"{SHIPPED.name} (shipped)"
NO_OVERLAY = "none"
# Not "examples": ComfyUI would look for workflows there and no longer in "workflows".
_PICTURES = Path(__file__).parents[2] / "pictures"


def register_model_folder() -> None:
    """Let ComfyUI list `models/dreamvideo`; safetensors files only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths = folder_paths.folder_names_and_paths[FOLDER][0]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def offer_pictures() -> None:
    """Put the pictures of the example workflows into ComfyUI's input folder, where they are missing."""
    folder = Path(folder_paths.get_input_directory())
    for picture in _PICTURES.glob("*.png"):
        try:
            if not (folder / picture.name).exists():
                with atomic(folder / picture.name) as temporary:
                    shutil.copyfile(picture, temporary)
        except OSError as error:
            log.warning(f"{picture.name}, a picture of the example workflows, cannot be put into {folder}: {error}")


def output_folder() -> Path:
    """Where ComfyUI saves what a workflow makes."""
    return Path(folder_paths.get_output_directory())


def temporary_folder() -> Path:
    """What ComfyUI empties when it starts and when it ends."""
    return Path(folder_paths.get_temp_directory())


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
    files = [path] if path.is_file() else [Path(root, name) for root, _, names in os.walk(path) for name in names]
    statuses = [file.stat() for file in files if file.is_file()]
    return max((s.st_mtime for s in statuses), default=0.0), sum(s.st_size for s in statuses)


def _choices() -> dict[str, Path]:
    """Path by the name that is shown: our folder's files and diffusers folders, and what ComfyUI's savers wrote.

    Where a name is in two places, the later one says where it is.
    """
    folders = [(kind, path, usable) for kind in (FOLDER, DIFFUSERS) for path, usable in _model_folders(kind)]
    inside = {path for _, path, _ in folders}
    found = [(FOLDER, name, path) for name, path in _files(FOLDER) if inside.isdisjoint(path.parents)]
    found += [(kind, path.name, path) for kind, path, usable in folders if usable]
    found += [(SAVERS, name, path) for name, path in _files(SAVERS) if name.endswith(".safetensors")]
    choices: dict[str, Path] = {}
    for kind, name, path in found:
        choices[f"{name} ({kind})" if name in choices else name] = path
    return choices


def _files(kind: str) -> list[tuple[str, Path]]:
    try:
        paths = {name: folder_paths.get_full_path(kind, name) for name in folder_paths.get_filename_list(kind)}
    except OSError as error:
        _say_what_is_left_out(f"models/{kind}", str(error))
        return []
    return [(name, Path(path)) for name, path in paths.items() if path is not None and not _goes_in_circles(Path(path), name)]


def _goes_in_circles(path: Path, name: str) -> bool:
    """Whether `path`, which ends with `name`, goes through a link to a folder that the link itself lies in."""
    links = [part for part in path.parents[: len(Path(name).parents) - 1] if part.is_symlink()]
    return any(_real(link) in (_real(link.parent), *_real(link.parent).parents) for link in links)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _model_folders(kind: str) -> list[tuple[Path, bool]]:
    """Folders of models in diffusers' layout, or in the hub's cache, right below ComfyUI's folders of that kind.

    False stands with those that cannot be used; one log line says why.
    """
    roots = [Path(root) for root in folder_paths.get_folder_paths(kind)]
    looked_at = [(path, _usable(path)) for root in roots for path in _inside(root)]
    return [(path, usable) for path, usable in looked_at if usable is not None]


def _inside(root: Path) -> list[Path]:
    """What lies in a folder, in order; nothing where there is none, or none that can be read."""
    try:
        return sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        _say_what_is_left_out(str(root), error.strerror or str(error))
        return []


def _usable(path: Path) -> bool | None:
    """None: it is no folder of a model. False: it is one, or may be one, but something is wrong with it."""
    troubles: list[str] = []
    try:
        found = model_folder(path, troubles.append) if path.is_dir() else None
    except OSError as error:
        found, troubles = None, [str(error)]
    for trouble in troubles:
        _say_what_is_left_out(str(path), trouble)
    if troubles:
        return False
    return None if found is None else True


@cache
def _say_what_is_left_out(path: str, why: str) -> None:
    log.warning(f"{path!r} is left out of the list of models: {why}")
