"""A ComfyUI server as a child process that is always ended."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from .base import BaseDirectory
from .client import Client
from .environment import COMPILED
from .errors import HostError, PackNotLoaded, PortUnusable, ServerFailed
from .logs import pack_error, tail
from .paths import PACK_NAME

START_SECONDS = 300
STOP_SECONDS = 10


class Server:
    """A ComfyUI server on 127.0.0.1, as a context manager.

    `base` is its base directory, `output` the folder that it saves to, `port` by default any free one, `page` the folder of
    another frontend than its own, `client` a client for it. Its log is kept if something goes wrong.
    """

    def __init__(
        self,
        comfyui: Path,
        base: BaseDirectory,
        output: Path | None = None,
        arguments: tuple[str, ...] = (),
        port: int | None = None,
        page: Path | None = None,
    ):
        self.comfyui = comfyui
        self.base = base
        self.output = output or base.output
        self.arguments = arguments if page is None else (*arguments, "--front-end-root", str(page))
        self.port = _free_port(port)
        self.workspace = base.root / "servers" / str(self.port)
        self.log_path = self.workspace / "server.log"
        self.client = Client(f"127.0.0.1:{self.port}", self.log_path)
        self._process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"http://{self.client.address}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def peak_memory(self) -> int:
        """The peak of the process's resident memory in bytes (Linux only)."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def __enter__(self) -> "Server":
        try:
            self._start()
            self._wait_until_ready()
            self._check_pack()
        except BaseException as error:
            self._end(error)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(error)

    def wait(self) -> None:
        """Wait until interrupted; raises `ServerFailed` if the server ends by itself."""
        raise ServerFailed(f"ComfyUI ended by itself, with exit status {self._process.wait()}; {self._log_end()}")

    def stop(self) -> None:
        """Terminate the server, and kill it if it does not end in time."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _end(self, error: BaseException | None) -> None:
        self.stop()
        if not isinstance(error, Exception) or (isinstance(error, HostError) and not error.keeps_log):
            shutil.rmtree(self.workspace, ignore_errors=True)

    def _start(self) -> None:
        self.base.prepare()
        self.workspace.mkdir(parents=True, exist_ok=True)
        self.output.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("w") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.workspace,
                env=_variables(),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _command(self) -> list[str]:
        """The command line. Each server has its own `temp` and database, so that servers can share a base directory."""
        return [
            sys.executable,
            str(self.comfyui / "main.py"),
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--base-directory",
            str(self.base.root),
            "--output-directory",
            str(self.output),
            "--temp-directory",
            str(self.workspace),
            "--database-url",
            f"sqlite:///{self.workspace / 'comfyui.db'}",
            *device_arguments(),
            *self.arguments,
        ]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.client.is_ready():
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"ComfyUI ended with exit status {self._process.returncode} while starting; {self._log_end()}"
                )
            if time.monotonic() > deadline:
                raise ServerFailed(f"ComfyUI did not answer within {START_SECONDS} s; {self._log_end()}")
            time.sleep(0.2)

    def _log_end(self) -> str:
        return f"the end of {self.log_path}:\n{tail(self.log_path)}"

    def _check_pack(self) -> None:
        module = f"custom_nodes.{PACK_NAME}"
        if not any(node.get("python_module") == module for node in self.client.object_info().values()):
            raise PackNotLoaded(f"ComfyUI runs, but did not load {PACK_NAME}:\n{pack_error(self.log_path, PACK_NAME)}")


def device_arguments() -> list[str]:
    """`--cpu` if torch finds no CUDA device."""
    import torch  # imported here, because it takes seconds

    return [] if torch.cuda.is_available() else ["--cpu"]


def _variables() -> dict[str, str]:
    """The server's environment variables, the same whatever started it. Its log is UTF-8 on every system."""
    return {**os.environ, **COMPILED, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _free_port(wanted: int | None) -> int:
    """`wanted` if it is free, or any free port for None. Raises `PortUnusable`."""
    with socket.socket() as probe:
        if os.name == "posix":  # as servers do: closed connections of an earlier server do not matter
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError as error:
            raise PortUnusable(f"port {wanted} cannot be used: {error.strerror}; give another --port, or none") from None
        return probe.getsockname()[1]
