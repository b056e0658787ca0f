"""Where files are: ComfyUI's folders `models/dreamvideo` and `models/diffusers`, and the pack's own files."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path

import folder_paths

from ...dreamvideo_core.common.checks import InputError
from ...dreamvideo_core.common.files import atomic
from ...dreamvideo_core.sampling.pipeline import SHIPPED
from ...dreamvideo_core.weights.sources import model_folder
from .messages import log

FOLDER, DIFFUSERS, SAVERS = "dreamvideo", "diffusers", "checkpoints"
SHIPPED_NAME = f"{SHIPPED.name} (shipped)"
NO_OVERLAY = "none"
# Not in "examples": ComfyUI would look for workflows there, and no longer in "workflows".
_PICTURES = Path(__file__).parents[2] / "pictures"


def register_model_folder() -> None:
    """Have ComfyUI list `models/dreamvideo`, safetensors files only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths = folder_paths.folder_names_and_paths[FOLDER][0]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def offer_pictures() -> None:
    """Copy the example workflows' pictures into ComfyUI's input folder, unless they are there."""
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
    """The choices of a model, the shipped one first."""
    return [SHIPPED_NAME, *_choices()]


def overlay_names() -> list[str]:
    """The choices of an overlay, none first."""
    return [NO_OVERLAY, *(name for name, path in _choices().items() if path.is_file())]


def checkpoint_path(name: str, input_name: str = "checkpoint") -> Path:
    """The file or folder of a choice. Raises `InputError` if it is gone."""
    path = SHIPPED if name == SHIPPED_NAME else _choices().get(name)
    if path is None:
        raise InputError(
            f"{input_name} is {name!r}, which is in none of models/{FOLDER}, models/{DIFFUSERS} and models/{SAVERS}. Put it "
            "there and refresh the page (R), or choose another."
        )
    return path


def last_change(path: Path) -> tuple[float, int]:
    """The newest time of change, and the size in bytes, of a file or of a folder's files."""
    files = [path] if path.is_file() else [Path(root, name) for root, _, names in os.walk(path) for name in names]
    statuses = [file.stat() for file in files if file.is_file()]
    return max((s.st_mtime for s in statuses), default=0.0), sum(s.st_size for s in statuses)


def _choices() -> dict[str, Path]:
    """Paths by the names that are shown: files and diffusers folders of models, and the files of ComfyUI's savers.

    If two have the same name, the later one's gets the kind of its folder behind it.
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
    """The names and paths that ComfyUI lists for a kind of folder."""
    try:
        paths = {name: folder_paths.get_full_path(kind, name) for name in folder_paths.get_filename_list(kind)}
    except OSError as error:
        _warn_of_omission(f"models/{kind}", str(error))
        return []
    return [(name, Path(path)) for name, path in paths.items() if path is not None and not _is_circular(Path(path), name)]


def _is_circular(path: Path, name: str) -> bool:
    """Whether `path`, which ends with `name`, passes a link to a folder above that link."""
    links = [folder for folder in path.parents[: len(Path(name).parents) - 1] if folder.is_symlink()]
    return any(_real(link) in (_real(link.parent), *_real(link.parent).parents) for link in links)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _model_folders(kind: str) -> list[tuple[Path, bool]]:
    """Folders of models right below ComfyUI's folders of that kind, in diffusers' layout or the hub cache's.

    Each comes with whether it can be used; if not, the log says why.
    """
    roots = [Path(root) for root in folder_paths.get_folder_paths(kind)]
    checked = [(path, _is_usable(path)) for root in roots for path in _entries(root)]
    return [(path, usable) for path, usable in checked if usable is not None]


def _entries(root: Path) -> list[Path]:
    """A folder's entries, sorted; none if it is missing or cannot be read."""
    try:
        return sorted(root.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        _warn_of_omission(str(root), error.strerror or str(error))
        return []


def _is_usable(path: Path) -> bool | None:
    """Whether a folder of a model can be used; None for what is no such folder."""
    faults: list[str] = []
    try:
        found = model_folder(path, faults.append) if path.is_dir() else None
    except OSError as error:
        found, faults = None, [str(error)]
    for fault in faults:
        _warn_of_omission(str(path), fault)
    if faults:
        return False
    return None if found is None else True


@cache
def _warn_of_omission(path: str, why: str) -> None:
    """Log, once, why a file or folder is not listed."""
    log.warning(f"{path!r} is left out of the list of models: {why}")
