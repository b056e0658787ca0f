"""The rating sheet as a rater sees it: a local page without network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from comfy_host.browser import launch
from playwright.sync_api import Page, expect, sync_playwright

from dreamvideo_core.evaluation.rating import CRITERIA, read_key, read_ratings
from dreamvideo_core.evaluation.rating_sheet import shuffled_clips, write_sheet
from dreamvideo_core.media.video import save_clip

CAPTIONS = {"one": "the <b>red</b> circle </script> moves", "two": "a star grows"}


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two models and two texts, with pictures."""
    root = tmp_path_factory.mktemp("sheet")
    folders = [root / "first_model", root / "second_model"]
    for number, folder in enumerate(folders):
        for name in CAPTIONS:
            save_clip(folder / f"{name}.webp", torch.full((3, 3, 16, 16), number - 0.5) + torch.arange(3).view(3, 1, 1, 1) / 4)
    shown = shuffled_clips(folders, CAPTIONS, None, 0)
    pictures = {name: folders[0] / f"{name}.webp" for name in CAPTIONS}
    write_sheet(root / "sheet.html", root / "key.json", shown, CAPTIONS, pictures, 8)
    return root / "sheet.html"


@pytest.fixture
def page(sheet: Path) -> Iterator[Page]:
    """The page; the test fails of anything that its console complains about, and of any request to elsewhere."""
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or complaints.append(request.url)
        )
        page.goto(sheet.as_uri())
        yield page
        browser.close()
    assert complaints == []


def rate(page: Page, value: int) -> None:
    for name in CRITERIA:
        page.locator(f"input[name={name}][value='{value}']").check()


def test_rating_every_clip_and_saving(page: Page, sheet: Path, tmp_path: Path):
    captions = []
    for number in range(1, 5):
        expect(page.locator("h1")).to_have_text(f"Clip {number} of 4")
        for image in ("#clip", "#picture"):
            expect(page.locator(image)).to_have_js_property("naturalWidth", 16)
        captions.append(page.locator("#caption").text_content())
        rate(page, number)
        if number < 4:
            page.get_by_role("button", name="Next", exact=True).click()
    assert sorted(captions) == sorted([*CAPTIONS.values()] * 2)
    expect(page.locator("#done")).to_have_text("all 4 rated: save your ratings")
    page.get_by_role("button", name="Save ratings").click()
    expect(page.locator("#note")).to_contain_text("Write your name first")
    page.get_by_label("Your name").fill("Ann B.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save ratings").click()
    assert download.value.suggested_filename == "ratings_Ann_B_.json"
    download.value.save_as(tmp_path / "saved.json")
    (ratings,) = read_ratings([tmp_path / "saved.json"], read_key(sheet.with_name("key.json")))
    assert ratings.rater == "Ann B."
    assert ratings.values == {str(number): dict.fromkeys(CRITERIA, number) for number in range(1, 5)}


def test_a_page_that_was_closed_too_early(page: Page, tmp_path: Path):
    page.get_by_role("button", name="Next", exact=True).click()
    rate(page, 2)
    page.get_by_role("button", name="Next", exact=True).click()
    page.locator("input[name=quality][value='5']").check()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator("#done")).to_have_text("1 rated")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator("input[name=quality][value='2']")).to_be_checked()
    page.get_by_role("button", name="Next not rated").click()
    expect(page.locator("h1")).to_have_text("Clip 3 of 4")
    page.get_by_label("Your name").fill("Bo")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save ratings").click()
    saved = json.loads(Path(download.value.path()).read_text())
    assert list(saved["ratings"]) == ["2"]  # what is half rated stays out
    page.get_by_role("button", name="Another rater").click()
    expect(page.locator("#done")).to_have_text("0 rated")
    expect(page.get_by_label("Your name")).to_have_value("")
    page.reload()
    expect(page.locator("#done")).to_have_text("0 rated")
