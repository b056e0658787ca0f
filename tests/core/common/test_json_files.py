"""Small JSON files of unknown origin: what is read, and how everything else is refused."""

import pytest

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.json_files import MAX_BYTES, read_object


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_an_object_is_read(tmp_path, encoding):
    (tmp_path / "config.json").write_text('{"name": "图", "scale": 1.5}', encoding=encoding)
    assert read_object(tmp_path / "config.json", "a configuration") == {"name": "图", "scale": 1.5}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1",
        b"[1, 2]",
        b"3",
        b'{"version": Infinity}',
        b'{"version": 1e999}',
        b'{"version": NaN}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"9" * 5000,
        '{"a": 1}'.encode("utf-16"),
        b"\xff\xfe\x00",
    ],
    ids=lambda content: content[:16].hex(),
)
def test_anything_else_is_refused_by_name(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json cannot be read as a configuration: it is"):
        read_object(tmp_path / "config.json", "a configuration")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="too many for a configuration"):
        read_object(tmp_path / "config.json", "a configuration")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "folder"])
def test_what_is_no_file_is_refused_by_name(tmp_path, make):
    make(tmp_path / "config.json")
    with pytest.raises(InputError, match=r"config\.json cannot be read as a configuration"):
        read_object(tmp_path / "config.json", "a configuration")
