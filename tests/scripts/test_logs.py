"""What is quoted from a server's log."""

from pathlib import Path

import pytest
from comfy_host import logs

FAILED_IMPORT = """\
\x1b[33m[WARNING]\x1b[0m Traceback (most recent call last):
ImportError: of another pack
Cannot import /base/custom_nodes/Other module for custom nodes: of another pack
\x1b[33m[WARNING]\x1b[0m Traceback (most recent call last):
  File "nodes.py", line 1, in load
ModuleNotFoundError: No module named 'kornia'

Cannot import /base/custom_nodes/Pack module for custom nodes: No module named 'kornia'
starting server
"""
FAILED_ENTRY = """\
Traceback (most recent call last):
ImportError: of another pack
Error while calling comfy_entrypoint in /base/custom_nodes/Pack: no such node
"""


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        (
            FAILED_IMPORT,
            "[WARNING] Traceback (most recent call last):",
            "Cannot import /base/custom_nodes/Pack module for custom nodes: No module named 'kornia'",
        ),
        (FAILED_ENTRY, *["Error while calling comfy_entrypoint in /base/custom_nodes/Pack: no such node"] * 2),
        ("all is well", *["the log says nothing about it: {log}"] * 2),
    ],
)
def test_the_packs_own_error_is_found(tmp_path: Path, text, first, last):
    log = tmp_path / "server.log"
    log.write_text(text)
    lines = logs.pack_error(log, "Pack").splitlines()
    assert (lines[0], lines[-1]) == (first.format(log=log), last.format(log=log))
    assert "of another pack" not in "".join(lines)
