"""Files that are changed at random: whatever they hold, they are opened or refused in a sentence, and nothing is written.

The same examples come every time.
"""

import copy
import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from diffusers_folder import write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import TINY, random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.weights.checkpoint import FORMAT, load_checkpoint
from dreamvideo_core.weights.convert import convert
from dreamvideo_core.weights.sources import model_folder, open_model

fuzzed = settings(
    max_examples=120, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just([]), st.just({}),
    st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 77, 49408, 2**31, "F32", "I64", "BOOL", "F4", "kl", "../x", "/x", "a\0b"]),
    st.lists(st.integers(-1, 2**40), max_size=4), st.lists(st.text(max_size=4), max_size=3),
    st.just("[" * 5000 + "]" * 5000), st.integers(50, 400).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)  # fmt: skip
MEGABYTES = 400


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """None of these files, the largest of which has less than a megabyte, takes much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, bytes]:
    """The header and the data of a small model with a packed table."""
    pipeline = random_pipeline(TINY)
    with torch.no_grad():
        pipeline.text_encoder.model.get_input_embeddings().weight[5:] = 0
    path = tmp_path_factory.mktemp("whole") / "tiny.safetensors"
    pipeline.save(path, parts=("unet", "text_encoder"), dtype=torch.float16)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """An empty folder for the files that are drawn."""
    return tmp_path_factory.mktemp("drawn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("folder") / "odd"
    write_folder(path, max_shard_size="300KB")
    return path


def places(tree: object, path: tuple = ()) -> list[tuple]:
    """The path of every value in a tree of JSON."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] * bool(path) + [place for key, value in pairs for place in places(value, (*path, key))]


def changed(data: st.DataObject, tree: dict) -> dict:
    """A copy in which some values are others, or gone."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(tree)))
        inner = tree
        for key in path:
            inner = inner[key]
        if data.draw(st.integers(0, 4)) == 0:
            del inner[last]
        else:
            inner[last] = data.draw(ODD)
        if not tree:
            break
    return tree


def opened_or_refused(path: Path, load) -> None:
    before = sorted(path.parent.rglob("*"))
    try:
        checkpoint = load(path)
        for state in checkpoint.parts.values():
            for name in state:
                state[name]
    except InputError as error:
        assert path.name in str(error) and "\n" not in str(error) and len(str(error)) < 1500
    assert sorted(path.parent.rglob("*")) == before


def write(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@fuzzed
@given(st.data())
def test_configurations(whole, room, data):
    header, content = whole
    described = json.dumps(changed(data, json.loads(header["__metadata__"][FORMAT])))
    text = json.dumps({**header, "__metadata__": {FORMAT: described}}).encode()
    opened_or_refused(write(room / "odd.safetensors", text, content), load_checkpoint)


@fuzzed
@given(st.data())
def test_headers(whole, room, data):
    header, content = whole
    names = data.draw(st.lists(st.sampled_from([n for n in header if "#" in n or "norm" in n]), min_size=1, max_size=3))
    some = changed(data, {name: header[name] for name in names})
    kept = {name: entry for name, entry in header.items() if name not in names}
    text = json.dumps(kept | some).encode()
    opened_or_refused(write(room / "odd.safetensors", text, content), load_checkpoint)


@fuzzed
@given(st.data())
def test_bytes(whole, room, data):
    header, content = whole
    text = json.dumps(header).encode()
    whole_file = bytearray(len(text).to_bytes(8, "little") + text + content)
    for _ in range(data.draw(st.integers(1, 6))):
        whole_file[data.draw(st.integers(0, len(whole_file) - 1))] = data.draw(st.integers(0, 255))
    for _ in range(data.draw(st.integers(0, 3))):
        whole_file[data.draw(st.integers(0, 400))] = data.draw(st.integers(0, 255))
    path = room / "odd.safetensors"
    path.write_bytes(whole_file[: data.draw(st.sampled_from([None, None, -1, 5, 100, 20_000]))])
    opened_or_refused(path, load_checkpoint)


@fuzzed
@given(
    st.binary(max_size=40), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00", b"GGUF", b"version ", b"{"])
)
def test_what_convert_makes_of_anything(room, rest, start):
    path = room / "odd.bin"
    path.write_bytes(start + rest)
    opened_or_refused(path, lambda source: convert(source, source.with_name("made.safetensors")))


@fuzzed
@given(st.data())
def test_folders(folder, data):
    files = sorted(folder.rglob("*.json"))
    path = data.draw(st.sampled_from(files))
    kept = path.read_bytes()
    if data.draw(st.booleans()):
        path.write_text(json.dumps(changed(data, json.loads(kept))))
    else:
        path.write_bytes(data.draw(st.binary(max_size=60)))
    try:
        opened_or_refused(folder, open_model)
    finally:
        path.write_bytes(kept)


@fuzzed
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode), st.sampled_from([b"../..", b"/", b".", b"~"])))
def test_references(room, reference):
    cache = room / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    (cache / "snapshots" / "aaa" / "unet").mkdir(parents=True)
    (cache / "snapshots" / "aaa" / "unet" / "config.json").write_text("{}")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_bytes(reference)
    assert model_folder(cache) in (None, cache / "snapshots" / "aaa")
