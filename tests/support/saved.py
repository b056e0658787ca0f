"""Workflows that people have saved, beside the prompts that their browser made of them.

`tests/saved/VERSION/` is never changed; a release adds a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

FILES = sorted((Path(__file__).parents[1] / "saved").glob("*/*.workflow.json"))


def name(file: Path) -> str:
    """The version and the workflow."""
    return f"{file.parent.name} {file.name.partition('.')[0]}"


def assert_same(prompt: dict[str, dict], file: Path) -> None:
    """Every value that the saved workflow sent is sent to the same input; inputs that came later are free."""
    expected = json.loads(file.with_name(file.name.replace(".workflow.", ".prompt.")).read_text(encoding="utf-8"))
    assert prompt.keys() == expected.keys()
    for node_id, node in expected.items():
        assert prompt[node_id]["class_type"] == node["class_type"]
        made = prompt[node_id]["inputs"]
        assert {key: made[key] for key in node["inputs"]} == node["inputs"]
