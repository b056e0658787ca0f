"""Manifests and names of folders that nobody would write: a sentence or a stage, and nothing touched outside the folder."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.files import folder_below
from dreamvideo_core.sampling.stage_store import MANIFEST, StageStore

FUZZED = settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
FRAMES, STRIP, KEY = torch.rand(2, 4, 4, 3), Image.new("RGB", (8, 4)), "c" * 40
GOOD = "stage_001_aaaaaaaaaaaa.safetensors"

HOSTILE = ["../outside/diary.txt", "..\\outside\\diary.txt", "../outside/frames.safetensors", ".", "", "CON", "a/b", MANIFEST]
names = st.one_of(st.sampled_from([GOOD, GOOD + "/..", "stage_002_bbbbbbbbbbbb.safetensors", *HOSTILE]), st.text(max_size=20))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), names)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
entries = st.one_of(
    values,
    st.fixed_dictionaries(
        {
            "number": st.one_of(st.just(1), values),
            "key": st.one_of(st.just("a" * 40), values),
            "strip": st.one_of(st.just("stage_001_aaaaaaaaaaaa.png"), values),
        },
        optional={"sentence": values, "seed": values, "sampling": values, "model": values, "more": values},
    ),
)
tables = st.one_of(
    values,
    st.fixed_dictionaries(
        {
            "format": st.one_of(st.just("dreamvideo chain"), values),
            "version": st.one_of(st.just(1), values),
            "stages": st.one_of(st.dictionaries(names, entries, max_size=3), values),
        }
    ),
)
manifests = st.one_of(st.binary(max_size=60), tables.map(lambda table: json.dumps(table).encode()))
parts = st.one_of(
    st.sampled_from(["..", ".", "", "a", "forest", "CON", "nul.txt", "C:", "~", "link", "a.", " ", "outside", "x" * 90]),
    st.text(max_size=8),
)
folders = st.one_of(
    st.text(max_size=30), st.lists(parts, max_size=6).flatmap(lambda p: st.sampled_from(["/", "\\"]).map(lambda s: s.join(p)))
)


def world(root: Path) -> dict[str, str]:
    """A folder `chain` for a store and one `outside` that no store may touch: all that is in the latter and beside both."""
    (root / "chain").mkdir()
    (root / "outside").mkdir()
    for name in ("diary.txt", "diary.png", "frames.safetensors", "frames.png"):
        (root / "outside" / name).write_text("mine")
    return outside(root)


def outside(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if root / "chain" not in (path, *path.parents))
    return {str(path): path.read_text() if path.is_file() else "" for path in paths}


@FUZZED
@given(manifests, st.sampled_from([None, 0]))
def test_manifests(manifest, limit):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = world(root)
        (root / "chain" / MANIFEST).write_bytes(manifest)
        try:
            store = StageStore(root / "chain", limit)
            store.find(1, "a" * 40)
            store.keep(2, KEY, FRAMES, STRIP, {"sentence": "left", "seed": 1})
            assert torch.equal(store.find(2, KEY), FRAMES)
        except InputError as error:
            assert MANIFEST in str(error)
            assert (root / "chain" / MANIFEST).read_bytes() == manifest
        assert outside(root) == before


@FUZZED
@given(st.binary(max_size=40), st.sampled_from([None, 0]))
def test_files_of_stages(data, limit):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = world(root)
        store = StageStore(root / "chain", limit)
        path = store.keep(1, KEY, FRAMES, STRIP, {"sentence": "left", "seed": 1})
        whole = path.read_bytes()
        path.write_bytes(data + whole[len(data) :])
        found = store.find(1, KEY)
        assert found is None or torch.equal(found, FRAMES)
        store.keep(1, KEY, FRAMES, STRIP, {"sentence": "left", "seed": 1})
        assert torch.equal(store.find(1, KEY), FRAMES)
        assert outside(root) == before


@FUZZED
@given(folders)
def test_names_of_folders(name):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        before = world(root)
        (root / "chain" / "link").symlink_to(root / "outside")
        try:
            store = StageStore(folder_below(root / "chain", name, "folder", "a name"))
            store.keep(1, KEY, FRAMES, STRIP, {"sentence": "left", "seed": 1})
            assert root / "chain" in store.folder.resolve().parents
        except InputError as error:
            assert "folder is" in str(error)
        assert outside(root) == before
