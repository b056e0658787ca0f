"""When the environment is made, kept or brought up to date."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from comfy_host import environment
from comfy_host.errors import HostError, SetupFailed
from comfy_host.paths import HOST


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The installer's jobs, recorded in place of being done, in a repository of its own."""
    jobs: list[str] = []

    def record(command: list, purpose: str) -> None:
        jobs.append(purpose)
        (tmp_path / "environment").mkdir(exist_ok=True)

    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(environment, "ENVIRONMENT", tmp_path / "environment")
    monkeypatch.setattr(environment, "STAMP", tmp_path / "environment" / "stamp")
    monkeypatch.setattr(environment, "_get_uv", lambda: Path("uv"))
    monkeypatch.setattr(environment, "_call", record)
    return jobs


def test_a_first_time_makes_it_and_a_second_time_does_nothing(calls: list[str], tmp_path: Path):
    environment.prepare(tmp_path)
    assert calls == ["making the environment", "installing the packages"]
    environment.prepare(tmp_path)
    assert len(calls) == 2


def test_changed_requirements_are_installed_into_the_same_environment(calls: list[str], tmp_path: Path):
    environment.prepare(tmp_path)
    (tmp_path / "pyproject.toml").write_text("changed")
    environment.prepare(tmp_path)
    assert calls[2:] == ["installing the packages"]


def test_an_interrupted_installation_is_begun_again(calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch, pytest.raises(SetupFailed):
        patch.setattr(environment, "_call", _fail)
        environment.prepare(tmp_path)
    environment.prepare(tmp_path)
    assert calls == ["making the environment", "installing the packages"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
def test_two_processes_make_it_one_after_the_other(calls: list[str], tmp_path: Path):
    import fcntl

    second = threading.Thread(target=environment.prepare, args=[tmp_path])
    with (tmp_path / "environment.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second.start()
        second.join(0.3)
        assert second.is_alive() and not calls
    second.join(10)
    assert calls == ["making the environment", "installing the packages"]


def test_compiled_modules_go_below_host_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "some_module.py").touch()
    line = [sys.executable, "-c", "import some_module; print(some_module.__cached__)"]
    said = subprocess.run(line, cwd=tmp_path, env=environment.variables(), capture_output=True, text=True, check=True)
    compiled = Path(said.stdout.strip())
    assert compiled.is_file() and HOST in compiled.parents
    assert list(tmp_path.iterdir()) == [tmp_path / "some_module.py"]
    compiled.unlink()


def test_a_command_that_does_not_exist_is_named():
    with pytest.raises(HostError, match="no command named no-such-command"):
        environment.execute(["no-such-command"])


def _fail(command: list, purpose: str) -> None:
    raise SetupFailed(purpose)
