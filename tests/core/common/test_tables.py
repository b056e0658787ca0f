"""Tables of clips and captions: one reader, for what is trained on and for what is evaluated."""

import json

import pytest

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.tables import read_rows
from dreamvideo_core.evaluation.captions import read_captions
from dreamvideo_core.training.data.listing import list_clips

CAPTIONS = {"a": "the red circle moves", "b": "a star, still"}


def table(ending: str) -> str:
    if ending.lower() == ".csv":
        return "path,caption\n" + "".join(f'{name}.mp4,"{caption}"\n' for name, caption in CAPTIONS.items())
    return "\n\n".join(json.dumps({"path": f"{name}.mp4", "caption": caption}) for name, caption in CAPTIONS.items())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("ending", [".csv", ".CSV", ".jsonl", ".JSONL"])
def test_a_table_trains_and_evaluates(tmp_path, ending, encoding):
    """With a byte order mark too, and whatever the case of its ending."""
    for name in CAPTIONS:
        (tmp_path / f"{name}.mp4").write_bytes(b"not opened here")
    path = tmp_path / f"table{ending}"
    path.write_text(table(ending), encoding=encoding)
    assert [(clip.path.stem, clip.caption) for clip in list_clips(path)] == list(CAPTIONS.items())
    assert read_captions(path) == CAPTIONS


def test_a_line_ends_where_the_files_does(tmp_path):
    (tmp_path / "t.jsonl").write_bytes('{"caption": "one\u2028two\u0085three"}\r\n{"caption": "four"}\r\n'.encode())
    assert [row["caption"] for row in read_rows(tmp_path / "t.jsonl", "data")] == ["one\u2028two\u0085three", "four"]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("t.csv", b"path,caption\na.mp4,caf\xe9\n", r"--captions is '.*t\.csv', which is no UTF-8 in line 2; save it as UTF-8"),
    ("t.csv", b"path,caption\na.mp4," + b"x" * 200_000, "which cannot be read"),
    ("t.jsonl", b'{"path": "caf\xe9"}', "which is no UTF-8 in line 1"),
    ("t.jsonl", b'{"path": "a"}\n\n{', r"--captions t\.jsonl, line 3 is no JSON"),
    ("t.jsonl", b"[1]", r"line 1 is '\[1\]'; it must be a JSON object"),
])  # fmt: skip
def test_what_is_no_table(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_rows(tmp_path / name, "--captions")
