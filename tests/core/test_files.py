"""Nothing half-written is left behind."""

import pytest

from dreamvideo_core.files import atomic, atomic_folder


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
