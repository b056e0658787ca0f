"""Both processes of one run of `dreamvideo` over gloo, with the variables by which `torchrun` tells them of each other.

They are forked from a process that has imported what the command needs, for that alone takes seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

_METHOD = "spawn" if os.name == "nt" else "forkserver"
_IMPORTED = [
    "dreamvideo_core.cli", "dreamvideo_core.evaluation.comparison", "dreamvideo_core.training.run",
    "torch.distributed.tensor", "transformers.models.clip.modeling_clip", "transformers.models.clip.tokenization_clip",
]  # fmt: skip
_SECONDS = 600


@dataclass
class Rank:
    """One of the two processes; `output` is the file of what it says."""

    process: BaseProcess
    output: Path

    def finish(self) -> str:
        """Wait for its end, which must be a good one, and return what it said."""
        self.process.join(_SECONDS)
        said = self.output.read_text(encoding="utf-8")
        assert self.process.exitcode == 0, said
        return said

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def start_ranks(folder: Path, *words: object) -> list[Rank]:
    """`dreamvideo WORDS` as the ranks 0 and 1; what they say goes into `folder`."""
    context = multiprocessing.get_context(_METHOD)
    if _METHOD == "forkserver":
        context.set_forkserver_preload(_IMPORTED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for number in range(2):
        output = folder / f"rank{number}.txt"
        process = context.Process(target=_run, args=(number, port, output, [str(word) for word in words]), daemon=True)
        process.start()
        ranks.append(Rank(process, output))
    return ranks


def _run(number: int, port: int, output: Path, words: list[str]) -> None:
    """What a rank does, in its own process."""
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "ACCELERATE_USE_CPU": "true"}

    import torch

    from dreamvideo_core.cli import app

    torch.set_num_threads(1)
    app(words)
