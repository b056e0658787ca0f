"""Workflows that people have saved: every value still lands on the input that it was given to.

`tests/saved/VERSION/` holds the workflow files of a version beside the prompts that its browser made of them. They are
never changed; a release adds a folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comfy_host import workflow
from comfy_host.server import Server

SAVED = Path(__file__).parents[1] / "saved"
FILES = sorted(SAVED.glob("*/*.workflow.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name} {file.name.partition('.')[0]}")
def test_values_land_where_they_did(server: Server, file: Path):
    expected = json.loads(file.with_name(file.name.replace(".workflow.", ".prompt.")).read_text(encoding="utf-8"))
    prompt = workflow.to_prompt(workflow.load(file), server.client.object_info())
    assert prompt.keys() == expected.keys()
    for node_id, node in expected.items():
        assert prompt[node_id]["class_type"] == node["class_type"]
        made = prompt[node_id]["inputs"]
        assert {name: made[name] for name in node["inputs"]} == node["inputs"]
