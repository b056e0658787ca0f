"""Nothing half-written is left behind."""

import os

import pytest

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.files import atomic, atomic_folder, folder_below


def test_a_file_appears_whole_and_keeps_its_ending(tmp_path):
    target = tmp_path / "new" / "clip.mp4"
    with atomic(target) as temporary:
        assert (temporary.suffix, temporary.parent) == (".mp4", target.parent)
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failing_write_leaves_what_was_there(tmp_path, old):
    target = tmp_path / "clip.mp4"
    if old:
        target.write_text(old)
    with pytest.raises(RuntimeError), atomic(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.read_text() for p in tmp_path.iterdir()] == ([old] if old else [])


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_whole(tmp_path, there):
    target = tmp_path / "frames"
    if there:
        target.mkdir()
    with atomic_folder(target) as temporary:
        (temporary / "0.png").write_text("whole")
        assert not there or not list(target.iterdir())
    assert [p.name for p in target.iterdir()] == ["0.png"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failing_folder_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "frames") as temporary:
        (temporary / "0.png").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["forest", "chain/forest", "chain\\forest", " forest ", "森林/夜", "COM10", "console", ".hidden"]
)
def test_names_that_every_system_can_have(tmp_path, name):
    folder = folder_below(tmp_path, name, "folder", "a name")
    folder.mkdir(parents=True)
    assert tmp_path in folder.parents


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", "../x", "a/../../x", "a\\..\\..\\x", "/x", "\\x", "//server/share/x", "\\\\?\\C:\\x", "C:\\x",
        "C:x", "c:", "CON", "a/nul.txt", "Aux .txt", "com1", "LPT9.x.y", "COM¹", "a.", "a /b", "a/b.", "a\0b", "a\nb",
        "a:stream", "a?", "\ud800", "x" * 181, "界" * 100,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_or_that_some_system_cannot_have(tmp_path, name):
    with pytest.raises(InputError, match=r"(?s)^folder is .*; allowed: a name \(.+\)$"):
        folder_below(tmp_path, name, "folder", "a name")


def test_a_link_that_leads_elsewhere(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "inside").mkdir()
    (root / "good").symlink_to(root / "inside")
    (root / "bad").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    assert folder_below(root, "good/x", "folder", "a name") == root / "good" / "x"
    for name in ("bad", "bad/x", "good/../bad", "circle/x"):
        with pytest.raises(InputError):
            folder_below(root, name, "folder", "a name")


def test_a_file_that_is_open_elsewhere_is_replaced_when_it_is_let_go(tmp_path, monkeypatch):
    """As on Windows, which lets nobody replace a file that another program has open."""
    target, tries, replace = tmp_path / "clip.mp4", [], os.replace

    def busy(*paths):
        tries.append(paths)
        if len(tries) < 3:
            raise PermissionError(13, "used by another process")
        replace(*paths)

    monkeypatch.setattr(os, "replace", busy)
    with atomic(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole" and len(tries) == 3


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("x" * 251 + ".mp4", "界" * 83 + ".mp4"):
        with atomic(tmp_path / name) as temporary:
            temporary.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
