"""Saved workflows without a browser: the command line sends what the browser sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import saved
from comfy_host import workflow
from comfy_host.server import Server


@pytest.mark.parametrize("file", saved.FILES, ids=saved.name)
def test_values_land_where_they_did(server: Server, file: Path):
    saved.assert_same(workflow.to_prompt(workflow.load(file), server.client.object_info()), file)
