"""Files that documents, comments and scripts of the repository name are there."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = (
    ".ci",
    ".github",
    "benchmarks",
    "docs",
    "dreamvideo_core",
    "locales",
    "nodes",
    "pictures",
    "scripts",
    "tests",
    "web",
    "workflows",
)
SUFFIXES = ("", ".html", ".js", ".md", ".py", ".toml", ".yml")
FILES = [*REPOSITORY.iterdir(), *(path for room in ROOMS for path in (REPOSITORY / room).rglob("*"))]
TEXTS = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in FILES
    if path.is_file() and path.suffix in SUFFIXES
}
NAMES = {path.name for path in FILES} | {"main.py"}  # that one is ComfyUI's
ELSEWHERE = {"scripts/run.sh", "scripts/run_application.sh"}  # of DynamiCrafter's code

# From the repository's root on: docs/chain.md, tests/host, workflows/NAME.json, docs/*.md.
PATH = re.compile(rf"(?<![\w./~*-])(?:{'|'.join(map(re.escape, ROOMS))})/[\w.*/-]*\w")
MODULE = re.compile(r"(?<![\w./*-])[a-z]\w*\.py\b")
DOTTED = re.compile(r"(?<![\w./*-])(?:dreamvideo_core|nodes)(?:\.[a-z_]\w*)+(?![\w/])")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z]{4,}(?![A-Za-z])")


def test_paths_from_the_root_exist():
    named = {(text, path) for text, content in TEXTS.items() for path in PATH.findall(content) if path not in ELSEWHERE}
    assert len(named) > 100
    assert [(text, path) for text, path in sorted(named) if not any(REPOSITORY.glob(PLACEHOLDER.sub("*", path)))] == []


@pytest.mark.parametrize("room", ["", "docs", "dreamvideo_core", "nodes", "scripts", "benchmarks"])
def test_modules_that_are_named_without_a_path_exist(room: str):
    named = {
        (text, name)
        for text, content in TEXTS.items()
        if (text.startswith(f"{room}/") if room else "/" not in text)
        for name in MODULE.findall(content)
    }
    assert [(text, name) for text, name in sorted(named) if name not in NAMES] == []


def test_modules_that_are_named_with_dots_exist():
    """The last part may be what a module defines. The changelog names old modules too."""
    pages = [text for text in TEXTS if text.endswith((".md", ".toml")) and text != "CHANGELOG.md"]
    named = {(text, name) for text in pages for name in DOTTED.findall(TEXTS[text])}
    assert [(text, name) for text, name in sorted(named) if not _is_there(REPOSITORY.joinpath(*name.split(".")))] == []


def _is_there(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file() or path.parent.with_suffix(".py").is_file()


def test_links_lead_somewhere():
    links = [(page, link) for page, content in TEXTS.items() if page.endswith(".md") for link in LINK.findall(content)]
    assert len(links) > 50
    assert [(page, link) for page, link in links if not (_base(page) / link).exists()] == []


def _base(page: str) -> Path:
    """What a page's links are relative to: ComfyUI shows help pages as if they lay in `web/docs`."""
    help_pages = REPOSITORY / "web" / "docs"
    path = REPOSITORY / page
    return help_pages if help_pages in path.parents else path.parent


def test_every_page_of_docs_is_in_the_index():
    linked = {(REPOSITORY / "docs" / link).resolve() for link in LINK.findall(TEXTS[str(Path("docs/README.md"))])}
    pages = {path for path in (REPOSITORY / "docs").rglob("*.md") if path.name != "README.md"}
    assert sorted(pages - linked) == []
