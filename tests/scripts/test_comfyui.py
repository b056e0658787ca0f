"""The command itself, against a real server with stock nodes only."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from comfy_host.outputs import read_frames
from comfy_host.paths import REPOSITORY

COMMAND = [sys.executable, str(REPOSITORY / "scripts" / "comfyui.py")]
WORKFLOW = Path(__file__).parent / "data" / "stripes.json"


def _run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_run_saves_a_clip_and_reports_it(tmp_path: Path):
    result = _run("run", WORKFLOW, "--set", "Last frames.batch_size=4", "--output", tmp_path)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["outputs"] == [report["clip"]]
    assert report["sampling_seconds"] == 0
    assert Path(report["contact_sheet"]).parent == Path(report["clip"]).parent == tmp_path
    assert [frame.size for frame in read_frames(Path(report["clip"]))] == [(64, 48)] * 7
    assert "[3/5] " in result.stderr


def test_run_fails_with_the_servers_own_words(tmp_path: Path):
    result = _run("run", WORKFLOW, "--set", "Save.filename_prefix=../../outside", "--output", tmp_path)
    assert result.returncode == 1
    assert 'error: node 5 "Save" (SaveVideo) raised Exception: ' in result.stderr
    assert "Saving image outside the output folder is not allowed" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("Save.format=avi", 'error: format is "avi"; allowed: auto, mp4'),
        ("Last frames.batch_size=0", "(EmptyImage): Value 0 smaller than min of 1: batch_size"),
    ],
)
def test_a_wrong_setting_leaves_nothing(tmp_path: Path, setting: str, words: str):
    result = _run("run", WORKFLOW, "--set", setting, "--output", tmp_path)
    assert result.returncode == 1
    assert words in result.stderr
    log = Path(re.search(r"log in (\S+)", result.stderr)[1])
    assert not log.parent.exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_cannot_be(port: str):
    result = _run("serve", f"--port={port}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith(f"argument --port: '{port}' is no port; allowed: 1 to 65535")


def test_exec_runs_a_command_inside_the_environment():
    result = _run("exec", "python", "-c", "import sys; print(sys.prefix, *sys.argv[1:]); sys.exit(3)", "--", "-x")
    assert result.returncode == 3
    assert result.stdout.split() == [str(REPOSITORY / ".host" / "environment"), "--", "-x"]
