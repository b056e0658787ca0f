"""Starting and ending a server, with a stand-in for ComfyUI."""

import socket
from pathlib import Path

import pytest
from comfy_host.base import BaseDirectory
from comfy_host.errors import PortUnusable, ServerFailed
from comfy_host.paths import REPOSITORY
from comfy_host.server import Server


@pytest.fixture
def make_server(tmp_path: Path):
    """`make_server(source)`: a server whose `main.py` is `source`."""

    def make(source: str) -> Server:
        (tmp_path / "main.py").write_text(source)
        return Server(tmp_path, BaseDirectory(tmp_path / "base"))

    return make


def test_a_server_that_ends_while_starting_shows_its_last_words(make_server):
    with pytest.raises(ServerFailed, match=r"exit status 1 while starting; the end of .*server\.log:\nno module named torch"):
        make_server("raise SystemExit('no module named torch')").__enter__()


def test_an_interruption_while_starting_leaves_nothing(make_server, monkeypatch: pytest.MonkeyPatch):
    server = make_server("import time; time.sleep(600)")
    monkeypatch.setattr(server.client, "is_ready", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.__enter__()
    assert server._process.poll() is not None
    assert not server.workspace.exists()


def test_a_server_that_ends_by_itself_is_no_good_end(make_server, monkeypatch: pytest.MonkeyPatch):
    server = make_server("print('out of memory'); raise SystemExit(9)")
    monkeypatch.setattr(server.client, "is_ready", lambda: True)
    monkeypatch.setattr(server, "_check_pack", lambda: None)
    with (
        pytest.raises(ServerFailed, match=r"ended by itself, with exit status 9; the end of .*server\.log:\nout of memory"),
        server,
    ):
        server.wait()
    assert server.log_path.is_file()


def test_a_port_of_ones_choice(tmp_path: Path):
    """Free again as soon as who had it is gone, though connections that it has closed linger."""
    base = BaseDirectory(tmp_path / "base")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with socket.create_connection(other.getsockname()):
            other.accept()[0].close()
        with pytest.raises(PortUnusable, match=f"port {taken} cannot be used: Address already in use; give another --port"):
            Server(tmp_path, base, port=taken)
    assert Server(tmp_path, base, port=taken).url == f"http://127.0.0.1:{taken}"


def test_stopping_twice_is_harmless(make_server):
    server = make_server("")
    server.stop()
    with pytest.raises(ServerFailed):
        server.__enter__()
    server.stop()


def test_the_base_directory_holds_the_pack_and_survives_a_second_time(tmp_path: Path):
    base = BaseDirectory(tmp_path / "base").prepare()
    assert base.prepare().pack.resolve() == REPOSITORY
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    assert base.add_input(picture) == "picture.png"
    assert (base.input / "picture.png").read_bytes() == b"png"


def _interrupt() -> bool:
    raise KeyboardInterrupt
