"""Fetching a pinned ComfyUI."""

import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
from comfy_host import releases
from comfy_host.errors import SetupFailed


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small archive of the layout that the package index has."""
    source = tmp_path / "carrier-1.0"
    for name in ("vendor/ComfyUI/main.py", "vendor/ComfyUI/comfy/cli_args.py", "carrier/__init__.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"# {name}\n")
    path = tmp_path / "carrier-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(source, source.name)
    return path


@pytest.fixture
def fetch(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`fetch(sha256)` with the archive in place of a download."""
    monkeypatch.setattr(releases, "download", lambda release, folder: archive)
    return lambda digest: releases.fetch(releases.Release("9.9.9", "1.0", digest), tmp_path / "releases")


def test_takes_only_comfyui_out_of_the_archive(fetch, archive: Path):
    folder = fetch(sha256(archive.read_bytes()).hexdigest())
    assert folder.name == "9.9.9"
    assert sorted(path.name for path in folder.rglob("*.py")) == ["cli_args.py", "main.py"]


def test_an_archive_with_another_hash_is_refused_and_leaves_nothing(fetch, tmp_path: Path):
    with pytest.raises(SetupFailed, match=r"carrier-1.0.tar.gz is not the pinned file: its SHA-256 is \w{64}, expected 00"):
        fetch("00")
    assert list((tmp_path / "releases").iterdir()) == []


def test_an_interrupted_unpacking_is_begun_again(fetch, archive: Path, monkeypatch: pytest.MonkeyPatch):
    digest = sha256(archive.read_bytes()).hexdigest()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tarfile.TarFile, "extractall", _interrupt)
        fetch(digest)
    assert (fetch(digest) / "main.py").is_file()


def test_a_folder_of_the_users_own_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "comfy").mkdir()
    (tmp_path / "main.py").touch()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert releases.locate() == tmp_path


def test_a_folder_without_comfyui_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(SetupFailed, match="holds no ComfyUI"):
        releases.locate()


def _interrupt(*arguments, **options):
    raise KeyboardInterrupt
