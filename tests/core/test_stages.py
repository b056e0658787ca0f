"""Finished stages on disk."""

import json

import pytest
import torch
from PIL import Image

from dreamvideo_core.checks import InputError
from dreamvideo_core.stages import MANIFEST, StageStore

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
