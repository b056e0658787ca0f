"""The pictures of the example workflows."""

from pathlib import Path

import pytest
from comfy_host.in_process import InProcessComfyUI
from comfy_host.paths import REPOSITORY

NAMES = [picture.name for picture in (REPOSITORY / "pictures").glob("*.png")]


def test_they_are_in_the_input_folder(host: InProcessComfyUI):
    assert NAMES
    assert all(host.base.has_input(name) for name in NAMES)


def test_a_file_of_that_name_stays_as_it_is(host: InProcessComfyUI):
    picture = host.base.input / NAMES[0]
    shipped = picture.read_bytes()
    picture.write_bytes(b"a picture of the user's")
    try:
        host.module("nodes.host.files").offer_pictures()
        assert picture.read_bytes() == b"a picture of the user's"
    finally:
        picture.write_bytes(shipped)


def test_an_input_folder_that_cannot_be_used_stops_nothing(
    host: InProcessComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "file"))
    (tmp_path / "file").write_bytes(b"no folder")
    host.module("nodes.host.files").offer_pictures()
    assert all(f"{name}, a picture of the example workflows, cannot be put into" in caplog.text for name in NAMES)
