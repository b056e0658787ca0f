"""ComfyUI's base directory: custom nodes, models, inputs and outputs, apart from ComfyUI's code."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from .paths import PACK_NAME, REPOSITORY

_ON_WINDOWS = os.name == "nt"


@dataclass(frozen=True)
class BaseDirectory:
    """A folder for `--base-directory`."""

    root: Path

    @property
    def custom_nodes(self) -> Path:
        return self.root / "custom_nodes"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def output(self) -> Path:
        return self.root / "output"

    @property
    def user(self) -> Path:
        return self.root / "user"

    @property
    def pack(self) -> Path:
        """This repository as a custom node pack."""
        return self.custom_nodes / PACK_NAME

    def prepare(self) -> "BaseDirectory":
        """Create the folders, and link the pack into `custom_nodes`."""
        for folder in (self.custom_nodes, self.models, self.input, self.output, self.user):
            folder.mkdir(parents=True, exist_ok=True)
        if not self.pack.exists():
            if os.path.lexists(self.pack):  # a broken link to a former repository
                (os.rmdir if _ON_WINDOWS else os.unlink)(self.pack)
            link_folder(self.pack, REPOSITORY)
        return self

    def has_input(self, name: str) -> bool:
        """Whether the input folder has a file with this relative name."""
        return not Path(name).is_absolute() and (self.input / name).is_file()

    def add_input(self, file: Path, name: str | None = None) -> str:
        """Copy a file into the input folder; returns its name for LoadImage."""
        name = name or Path(file).name
        shutil.copyfile(file, self.input / name)
        return name


def link_folder(link: Path, folder: Path) -> None:
    """Link to a folder, on Windows by a junction if the user may not create symbolic links."""
    try:
        os.symlink(folder, link, target_is_directory=True)
    except OSError:
        if not _ON_WINDOWS:
            raise
        import _winapi

        _winapi.CreateJunction(str(folder), str(link))
