"""One folder of stages and several processes: nothing is lost, and nothing half-written is taken for a stage."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from PIL import Image

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.common.files import atomic
from dreamvideo_core.sampling.stage_store import MANIFEST, StageStore

STRIP = Image.new("RGB", (64, 16))
KILLS = 20
STAGES = 30


def key(process: int) -> str:
    return f"{process:012x}" * 3


def frames(number: int, side: int = 4) -> torch.Tensor:
    return torch.full((4, side, side, 3), number / 64)


def record(number: int) -> dict:
    return {"sentence": f"sentence {number}", "seed": number}


def keep_ten(folder: Path, process: int) -> None:
    store = StageStore(folder)
    for number in range(1, 11):
        store.keep(number, key(process), frames(number), STRIP, record(number))


def keep_all(folder: Path, process: int, done: Path) -> None:
    """Keep stages until killed, and note each that is kept."""
    torch.set_num_threads(1)
    store = StageStore(folder)
    notes = os.open(done, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, b"0\n")
    for number in range(1, STAGES + 1):
        store.keep(number, key(process), frames(number, 64), STRIP, record(number))
        os.write(notes, f"{number}\n".encode())


def start(target, *arguments) -> multiprocessing.Process:
    process = multiprocessing.Process(target=target, args=arguments)
    process.start()
    return process


def test_processes_that_share_a_folder_lose_nothing(tmp_path):
    processes = [start(keep_ten, tmp_path, number) for number in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    store = StageStore(tmp_path)
    assert len(json.loads((tmp_path / MANIFEST).read_text())["stages"]) == 30
    for number in range(1, 11):
        for process in range(3):
            assert torch.equal(store.find(number, key(process)), frames(number))


def test_processes_with_equal_numbers_do_not_share_temporary_names(tmp_path, monkeypatch):
    """As in two containers."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    with atomic(tmp_path / "clip.mp4") as one, atomic(tmp_path / "clip.mp4") as other:
        assert one != other
        one.write_text("one"), other.write_text("other")


def test_kills_lose_nothing_that_was_kept(tmp_path):
    folder, kills, chance = tmp_path / "chain", 0, random.Random(0)
    for process in range(KILLS):
        done = tmp_path / f"done{process}"
        running = start(keep_all, folder, process, done)
        while not done.exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.15))
        kills += running.is_alive()
        running.kill()
        running.join()
        kept = [int(line) for line in done.read_text().splitlines()][1:]
        store = StageStore(folder)
        for number in range(1, STAGES + 1):
            found = store.find(number, key(process))
            assert found is not None or number not in kept
            assert found is None or torch.equal(found, frames(number, 64))
        store.keep(64, key(process), frames(64), STRIP, record(64))
        assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    assert kills > KILLS / 2  # else they came too late
    stages = json.loads((folder / MANIFEST).read_text())["stages"]
    assert {path.name for path in folder.glob("*.safetensors")} == set(stages)


def test_what_killed_processes_left_is_deleted_and_nothing_else(tmp_path):
    store = StageStore(tmp_path)
    store.keep(1, key(1), frames(1), STRIP, record(1))
    left = [".stage_002_aaaaaaaaaaaa." + "0" * 32 + ".safetensors", ".manifest." + "f" * 32 + ".json"]
    old = ".stage_002_aaaaaaaaaaaa.4242.png"
    others = [".gitignore", ".stage_002.txt", "notes.png", ".stage_003_aaaaaaaaaaaa.4242.png"]
    for name in (*left, old, *others):
        (tmp_path / name).write_text("x")
    os.utime(tmp_path / old, (0, 0))  # versions without a lock may be at work: theirs go by age
    assert store.find(1, key(1)) is not None
    there = {path.name for path in tmp_path.iterdir()}
    assert not there & {*left, old} and there >= set(others)


def test_a_stage_that_was_not_entered_is_entered(tmp_path):
    """Its process was killed between the file and the manifest."""
    store = StageStore(tmp_path)
    store.keep(1, key(1), frames(1), STRIP, record(1))
    whole = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).unlink()
    assert torch.equal(store.find(1, key(1)), frames(1))
    assert (tmp_path / MANIFEST).read_text() == whole


def test_a_file_system_without_locks_keeps_stages_too(tmp_path, monkeypatch):
    def refuse(lock):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("filelock.BaseFileLock.acquire", refuse)
    store = StageStore(tmp_path)
    store.keep(1, key(1), frames(1), STRIP, record(1))
    assert torch.equal(store.find(1, key(1)), frames(1))


def test_a_leftover_that_cannot_be_deleted_stops_nothing(tmp_path):
    store = StageStore(tmp_path)
    (tmp_path / (".manifest." + "0" * 32 + ".json")).mkdir()
    store.keep(1, key(1), frames(1), STRIP, record(1))
    assert torch.equal(store.find(1, key(1)), frames(1))


def hold(lock: Path, held) -> None:
    with FileLock(lock):
        held.set()
        time.sleep(60)


def test_a_folder_that_another_process_holds_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("dreamvideo_core.sampling.stage_store._LOCK_SECONDS", 0.2)
    store = StageStore(tmp_path)
    store.keep(1, key(1), frames(1), STRIP, record(1))
    held = multiprocessing.Event()
    holder = start(hold, tmp_path / ".lock", held)
    held.wait()
    try:
        with pytest.raises(InputError, match=r"\.lock has been locked by another process"):
            store.keep(2, key(1), frames(2), STRIP, record(2))
    finally:
        holder.kill()
        holder.join()
    store.keep(2, key(1), frames(2), STRIP, record(2))  # the system lets go of what a killed process held
