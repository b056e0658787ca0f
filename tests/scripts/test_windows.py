"""What Windows does otherwise, as far as it can be played here."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from comfy_host import base, locks, workflow
from comfy_host.base import BaseDirectory
from comfy_host.console import print_anything
from comfy_host.paths import REPOSITORY


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A user who may make no links, and the junctions that are made in their place."""
    made, link = [], os.symlink

    def refuse(*arguments, **options) -> None:
        raise OSError(22, "A required privilege is not held by the client")

    def junction(folder: str, place: str) -> None:
        made.append(Path(place))
        link(folder, place)

    monkeypatch.setattr(base, "_ON_WINDOWS", True)
    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setitem(sys.modules, "_winapi", SimpleNamespace(CreateJunction=junction))
    return made


def test_a_user_who_may_make_no_links_gets_a_junction(tmp_path: Path, no_links: list[Path]):
    directory = BaseDirectory(tmp_path).prepare()
    assert no_links == [directory.pack] and directory.pack.resolve() == REPOSITORY


def test_elsewhere_a_link_that_fails_is_an_error(tmp_path: Path, no_links: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "_ON_WINDOWS", False)
    with pytest.raises(OSError, match="privilege"):
        BaseDirectory(tmp_path).prepare()


def test_processes_take_turns_by_windows_own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    attempts = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        attempts.append((mode, count))
        if len(attempts) < 3:
            raise OSError(13, "Permission denied")

    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "_SECONDS", 0)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
    with locks.alone(tmp_path / "lock"):
        assert attempts == [(2, 1)] * 3


def test_an_emoji_ends_no_command_on_a_western_console(monkeypatch: pytest.MonkeyPatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    with pytest.raises(UnicodeEncodeError):
        print("🦊", flush=True)
    print_anything()
    print("🦊.mp4", flush=True)
    assert written.getvalue().strip() == rb"\U0001f98a.mp4"


def test_a_log_is_utf8_whatever_this_systems_encoding(tmp_path: Path):
    (tmp_path / "server.log").write_bytes("says 狐狸".encode())
    program = "import sys, pathlib; from comfy_host import logs; print(ascii(logs.tail(pathlib.Path(sys.argv[1]))))"
    western = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(REPOSITORY / "scripts")}
    line = [sys.executable, "-c", program, tmp_path / "server.log"]
    told = subprocess.run(line, env={**os.environ, **western}, capture_output=True, text=True, check=True).stdout
    assert told.strip() == ascii("says 狐狸")


def test_a_workflow_may_begin_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "w.json").write_bytes(b"\xef\xbb\xbf{}")
    assert workflow.load(tmp_path / "w.json") == {}
