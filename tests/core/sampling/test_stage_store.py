"""Finished stages on disk."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.sampling.stage_store import MANIFEST, StageStore

FRAMES = torch.rand(3, 4, 4, 3)
STRIP = Image.new("RGB", (12, 4))
RECORD = {"sentence": "left", "seed": 7}


def keep(store: StageStore, number: int = 1, key: str = "a" * 40, frames: torch.Tensor = FRAMES):
    return store.keep(number, key, frames, STRIP, RECORD)


def test_a_stage_comes_back_exactly(tmp_path):
    store = StageStore(tmp_path / "chain")
    assert store.find(1, "a" * 40) is None and not store.folder.exists()
    path = keep(store)
    assert torch.equal(StageStore(tmp_path / "chain").find(1, "a" * 40), FRAMES)
    assert store.find(1, "b" * 40) is None and store.find(2, "a" * 40) is None
    assert Image.open(path.with_suffix(".png")).size == (12, 4)
    (entry,) = json.loads((store.folder / MANIFEST).read_text())["stages"].values()
    assert entry["sentence"] == "left" and entry["seed"] == 7 and entry["number"] == 1


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path):
    """One number of another type, and the whole folder would be refused from then on."""
    store = StageStore(tmp_path)
    keep(store)
    with pytest.raises(InputError, match=r"stage 2 cannot be kept: its record, .*5\.0"):
        store.keep(2, "b" * 40, FRAMES, STRIP, {**RECORD, "seed": 5.0})
    assert torch.equal(StageStore(tmp_path).find(1, "a" * 40), FRAMES)


def test_another_key_lies_beside_the_first(tmp_path):
    store = StageStore(tmp_path)
    keep(store), keep(store, key="b" * 40, frames=FRAMES * 0)
    assert torch.equal(store.find(1, "a" * 40), FRAMES)
    assert not store.find(1, "b" * 40).any()


def test_a_key_that_shares_its_beginning_is_another(tmp_path):
    store = StageStore(tmp_path)
    keep(store)
    assert store.find(1, "a" * 39 + "b") is None


@pytest.mark.parametrize("damage", [lambda data: data[:-1] + bytes([data[-1] ^ 1]), lambda data: data[:-9], lambda data: b""])
def test_a_damaged_stage_is_not_taken(tmp_path, damage):
    store = StageStore(tmp_path)
    path = keep(store)
    path.write_bytes(damage(path.read_bytes()))
    assert store.find(1, "a" * 40) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as a chain's manifest"),
        ("[]", "cannot be read"),
        ('{"format": "dreamvideo chain", "version": 2, "stages": {}}', "version 2; this pack has version 1"),
        ('{"format": "other", "version": 1, "stages": {}}', "is 'other'"),
        ('{"format": "%s", "version": 1, "stages": {}}' % ("x" * 10000), r"is 'x{1,40}\.\.\.x*', version 1"),
    ],
)
def test_a_manifest_of_another_kind_stays(tmp_path, text, words):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=words):
        StageStore(tmp_path)
    assert (tmp_path / MANIFEST).read_text() == text


def test_an_edited_manifest_is_said(tmp_path):
    store = StageStore(tmp_path)
    keep(store)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace('"left"', '"right"'))
    with pytest.raises(InputError, match="was edited"):
        store.find(1, "a" * 40)


def test_the_oldest_make_room(tmp_path):
    store = StageStore(tmp_path, limit=3000)
    for number in range(1, 6):
        keep(store, number)
    assert store.find(5, "a" * 40) is not None and store.find(1, "a" * 40) is None
    kept = json.loads((tmp_path / MANIFEST).read_text())["stages"]
    assert set(kept) == {path.name for path in tmp_path.glob("*.safetensors")}
    assert len(list(tmp_path.glob("*.png"))) == len(kept)


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file; give another name"):
            StageStore(folder)


def entry(name: str, **changed) -> dict:
    """What a manifest says of the stage in file `name`, but for what is `changed`."""
    number, digits = name.removesuffix(".safetensors").split("_")[1:]
    strip = name.replace(".safetensors", ".png")
    return {"number": int(number), "sentence": "left", "seed": 7, "key": digits * 3, "strip": strip, **changed}


def write_manifest(folder: Path, stages: object) -> str:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"format": "dreamvideo chain", "version": 1, "stages": stages})
    (folder / MANIFEST).write_text(text)
    return text


GOOD = "stage_001_aaaaaaaaaaaa.safetensors"


@pytest.mark.parametrize(
    "stages",
    [
        {"../../elsewhere/diary.txt": entry(GOOD)},
        {"/etc/passwd": entry(GOOD)},
        {"C:\\stage_001_aaaaaaaaaaaa.safetensors": entry(GOOD)},
        {"stage_001_aaaaaaaaaaaa.safetensors\n": entry(GOOD)},
        {"stage_001_AAAAAAAAAAAA.safetensors": entry(GOOD)},
        {GOOD: "text"},
        {GOOD: entry(GOOD, number=2)},
        {GOOD: entry(GOOD, number="1")},
        {GOOD: entry(GOOD, key="b" * 36)},
        {GOOD: entry(GOOD, key=5)},
        {GOOD: entry(GOOD, strip="../diary.png")},
        {GOOD: entry(GOOD, sentence=["left"])},
        {GOOD: {}},
        [GOOD],
        None,
    ],
)
def test_a_manifest_that_names_anything_else_is_refused(tmp_path, stages):
    text = write_manifest(tmp_path, stages)
    with pytest.raises(InputError, match=r"manifest\.json cannot be read as a chain's manifest: .*Move it away"):
        StageStore(tmp_path)
    assert (tmp_path / MANIFEST).read_text() == text


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": Infinity}', '{"version": ' + "9" * 5000 + "}", "\udcff", ""])
def test_a_hostile_manifest_is_refused_with_its_name(tmp_path, text):
    (tmp_path / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"manifest\.json cannot be read as a chain's manifest"):
        StageStore(tmp_path)


def test_making_room_touches_nothing_but_stages(tmp_path):
    """Also where names of stages lead elsewhere, by links, or are folders."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("diary.txt", "diary.png", "frames.safetensors"):
        (outside / name).write_text("mine")
    folder = tmp_path / "chain"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / GOOD).symlink_to(outside / "frames.safetensors")
    (folder / GOOD.replace("safetensors", "png")).symlink_to(outside / "diary.png")
    (folder / "stage_002_bbbbbbbbbbbb.safetensors").mkdir()
    store = StageStore(folder, limit=1)
    assert store.find(1, "a" * 40) is None
    for number in range(3, 6):
        keep(store, number)
    assert store.find(5, "a" * 40) is not None
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "diary.txt": "mine", "diary.png": "mine", "frames.safetensors": "mine",
    }  # fmt: skip
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_stage_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("mine")
    folder = tmp_path / "chain"
    folder.mkdir()
    for name in (GOOD, GOOD.replace("safetensors", "png")):
        (folder / name).symlink_to(diary)
    keep(StageStore(folder))
    assert diary.read_text() == "mine" and not (folder / GOOD).is_symlink()


def test_a_lock_that_is_a_link_is_not_opened(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("mine")
    store = StageStore(tmp_path / "chain")
    keep(store)
    (store.folder / ".lock").unlink(missing_ok=True)
    (store.folder / ".lock").symlink_to(diary)
    with pytest.raises(InputError, match=r"\.lock is a link"):
        keep(store, 2)
    assert diary.read_text() == "mine"


@pytest.mark.parametrize("key", ["../../x", "a" * 11, "A" * 40, "a/b" * 20])
def test_only_digits_become_a_name(tmp_path, key):
    with pytest.raises(InputError, match="has no name"):
        StageStore(tmp_path).keep(1, key, FRAMES, STRIP, RECORD)
    assert not list(tmp_path.iterdir())


def test_frames_that_are_none_are_not_taken(tmp_path):
    store = StageStore(tmp_path)
    for frames in (torch.rand(3, 4, 4), torch.rand(3, 4, 4, 2), torch.zeros(3, 4, 4, 3, dtype=torch.int32)):
        keep(store, frames=frames)
        assert store.find(1, "a" * 40) is None


def test_frames_are_not_mapped(tmp_path):
    """A file that is mapped can be neither replaced nor deleted on Windows; elsewhere frames would change with it."""
    store = StageStore(tmp_path)
    path = keep(store)
    found = store.find(1, "a" * 40)
    with path.open("r+b") as file:
        file.seek(-FRAMES.numel() * 4, 2)
        file.write(bytes(FRAMES.numel() * 4))
    assert torch.equal(found, FRAMES)


def test_a_file_that_cannot_be_deleted_stays_known(tmp_path, monkeypatch):
    """As on Windows while a viewer has it open."""
    store = StageStore(tmp_path, limit=3000)
    held = keep(store, 1)
    unlink = Path.unlink

    def busy(path, *args, **kwargs):
        if path == held:
            raise PermissionError(13, "used by another process", str(path))
        unlink(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", busy)
    for number in range(2, 6):
        keep(store, number)
    assert store.find(1, "a" * 40) is not None and store.find(5, "a" * 40) is not None
    assert held.name in json.loads((tmp_path / MANIFEST).read_text())["stages"]


def test_half_a_character_in_a_sentence_is_kept(tmp_path):
    store = StageStore(tmp_path)
    store.keep(1, "a" * 40, FRAMES, STRIP, {"sentence": "left \ud83d", "seed": 1})
    assert torch.equal(StageStore(tmp_path).find(1, "a" * 40), FRAMES)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            errno.ENOSPC,
            r"the folder '.*chain' is full .*: stage 2 could not be kept\. 1 stage is kept there and whole\. Make room",
        ),
        (errno.EDQUOT, "is full .*same chain goes on from there"),
        (errno.EROFS, r"cannot be written to \(.*\): stage 2 could not be kept\. 1 stage is kept"),
        (errno.EIO, "cannot be used .*: stage 2 could not be kept"),
    ],
)
def test_a_failing_disk_is_said(tmp_path, monkeypatch, error, words):
    """As the system reports it when the file is put in its place."""
    store = StageStore(tmp_path / "chain")
    keep(store)

    def failing(*args):
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing)
        with pytest.raises(InputError, match=words) as caught:
            keep(store, 2, key="b" * 40)
        assert "another name" not in str(caught.value)
    assert {path.suffix for path in store.folder.iterdir() if path.name != ".lock"} == {".json", ".png", ".safetensors"}
    assert store.find(2, "b" * 40) is None and torch.equal(store.find(1, "a" * 40), FRAMES)
    keep(store, 2, key="b" * 40)
    assert store.find(2, "b" * 40) is not None


def test_a_temporary_store_asks_for_no_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file; move it away"):
        StageStore(tmp_path / "file", limit=1000)
