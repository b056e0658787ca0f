"""Fetching another frontend."""

import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from comfy_host import frontends, packages
from comfy_host.errors import SetupFailed


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "comfyui_frontend_package-9.9.9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("static/index.html", "static/assets/app.js", "__init__.py"):
            archive.writestr(f"comfyui_frontend_package/{name}", name)
    return path


@pytest.fixture
def fetch(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fetch(version)` with the wheel in place of a download."""
    monkeypatch.setattr(packages, "download", lambda requirement, folder: wheel)
    return lambda version: frontends.fetch(version, tmp_path / "frontends")


def test_takes_the_page_out_of_the_wheel(fetch):
    folder = fetch("9.9.9")
    assert folder.name == "9.9.9"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["app.js", "index.html"]


def test_a_pinned_one_with_another_hash_is_refused_and_leaves_nothing(
    fetch, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(frontends.PINNED, "9.9.9", "00")
    with pytest.raises(SetupFailed, match=r"9.9.9-py3-none-any.whl is not the pinned file: its SHA-256 is \w{64}, expected 00"):
        fetch("9.9.9")
    assert list((tmp_path / "frontends").iterdir()) == []
    monkeypatch.setitem(frontends.PINNED, "9.9.9", sha256(wheel.read_bytes()).hexdigest())
    assert (fetch("9.9.9") / "index.html").is_file()


def test_a_wheel_without_a_page_is_refused(fetch, wheel: Path, tmp_path: Path):
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("comfyui_frontend_package/__init__.py", "")
    with pytest.raises(SetupFailed, match=r"holds no comfyui_frontend_package/static/index\.html"):
        fetch("9.9.9")
    assert list((tmp_path / "frontends").iterdir()) == []


@pytest.mark.parametrize("version", ["", "newest", "../1.58.1", "1.58.1 --pre", "1..2"])
def test_what_is_no_version_is_refused(fetch, version: str, tmp_path: Path):
    with pytest.raises(SetupFailed, match=r"frontend is .*; allowed: a version, such as 1\.58\.1"):
        fetch(version)
    assert not (tmp_path / "frontends").exists()
