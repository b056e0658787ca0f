"""Translations say something about every node, input and output, and about nothing else."""

import json

import pytest
from comfy_host.paths import REPOSITORY
from english_locale import english

LOCALES = REPOSITORY / "locales"


def read(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def shape(table: object) -> object:
    return {key: shape(value) for key, value in table.items()} if isinstance(table, dict) else None


def test_the_english_texts_are_the_nodes_own(host):
    assert read("en") == english(host), "run: python3 scripts/comfyui.py exec python scripts/english_locale.py"


@pytest.mark.parametrize("language", sorted(path.name for path in LOCALES.iterdir() if path.name != "en"))
def test_every_text_is_translated(language: str):
    assert shape(read(language)) == shape(read("en"))
    texts = json.dumps(read(language), ensure_ascii=False)
    assert '""' not in texts


def test_every_node_has_a_help_page_in_every_language(host):
    languages = {path.name for path in LOCALES.iterdir()}
    folder = REPOSITORY / "web" / "docs"
    pages = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")}
    assert pages == {f"{name}/{language}" for name in english(host) for language in languages}
