"""The rating sheet: what it hides, and what becomes of what raters save."""

from __future__ import annotations

import base64
import io
import json
import re
import shlex
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dreamvideo_core.cli import app
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.captions import read_captions
from dreamvideo_core.evaluation.paper import RATINGS
from dreamvideo_core.evaluation.rating import CRITERIA, Ratings, SheetKey, as_table, model_scores
from dreamvideo_core.evaluation.rating_sheet import shuffled_clips
from dreamvideo_core.media.video import save_clip

CAPTIONS = {"one": "the red circle moves", "two": 'a "quoted", </script> sentence', "three": "a star, still"}
MODELS = ("secret_model", "other_method")


def noise(seed: int) -> torch.Tensor:
    return torch.rand(3, 3, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def with_metadata(path: Path) -> None:
    """The clip again, with a model's name in the file, as ComfyUI's savers leave it."""
    save_clip(path.with_suffix(".tmp.mp4"), noise(9))
    with av.open(str(path.with_suffix(".tmp.mp4"))) as source, av.open(str(path), "w") as container:
        container.metadata["comment"] = "made by secret_model"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    path.with_suffix(".tmp.mp4").unlink()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models' clips of three texts in every kind of file, their captions and pictures."""
    root = tmp_path_factory.mktemp("rating")
    for number, model in enumerate(MODELS):
        for name, ending in zip(CAPTIONS, (".webp", "", ".gif") if number else (".mp4", ".webp", ".webp"), strict=True):
            save_clip(root / model / f"{name}{ending}", noise(10 * number + len(name)))
    (root / MODELS[0] / "one.mp4").unlink()
    with_metadata(root / MODELS[0] / "one.mp4")
    assert b"secret_model" in (root / MODELS[0] / "one.mp4").read_bytes()
    rows = [json.dumps({"path": f"somewhere/{name}.mp4", "caption": caption}) for name, caption in CAPTIONS.items()]
    (root / "captions.jsonl").write_text("\n".join(rows))
    (root / "pictures").mkdir()
    for name in CAPTIONS:
        Image.new("RGB", (24, 16), "red").save(root / "pictures" / f"{name}.png")
    return root


@pytest.fixture
def run(clips: Path, tmp_path: Path):
    """Runs `dreamvideo rate`; {c} is the folder of clips, {o} an empty one."""
    return lambda line: CliRunner().invoke(app, shlex.split("rate " + line.format(c=clips, o=tmp_path)))


MAKE = "{c}/secret_model {c}/other_method --captions {c}/captions.jsonl --output {o}/sheet.html"


def content(page: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="sheet">(.*?)</script>', page.read_text())[1])


def test_a_page_that_tells_no_model(run, tmp_path):
    result = run(MAKE + " --images {c}/pictures --seed 3")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "sheet.html").read_text()
    sheet = content(tmp_path / "sheet.html")
    assert len(sheet["clips"]) == 6 and len(sheet["pictures"]) == 3
    decoded = [base64.b64decode(clip["clip"].partition(",")[2]) for clip in sheet["clips"]]
    for name in (*MODELS, str(tmp_path)):
        assert name not in page
        assert not any(name.encode() in clip for clip in decoded)
    assert all(Image.open(io.BytesIO(clip)).n_frames == 3 for clip in decoded)
    assert "default-src 'none'" in page and not re.search(r"(src|href)=\"?https?:", page)
    key = json.loads((tmp_path / "sheet.key.json").read_text())
    assert key["sheet"] == sheet["sheet"]
    made = {number: (clip["model"], clip["clip"]) for number, clip in key["clips"].items()}
    assert sorted(made.values()) == sorted((model, name) for model in MODELS for name in CAPTIONS)
    assert [clip["caption"] for clip in sheet["clips"]] == [CAPTIONS[made[str(n)][1]] for n in range(1, 7)]
    assert str(tmp_path / "sheet.key.json") in result.stdout


def test_without_pictures_none_is_shown(run, tmp_path):
    assert run(MAKE).exit_code == 0
    sheet = content(tmp_path / "sheet.html")
    assert sheet["pictures"] == [] and {clip["picture"] for clip in sheet["clips"]} == {None}


def test_the_seed_decides_the_order(clips):
    folders = [clips / model for model in MODELS]
    orders = [shuffled_clips(folders, CAPTIONS, None, seed) for seed in (0, 0, 1, 2)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    assert len({frozenset(order) for order in orders}) == 1
    fewer = shuffled_clips(folders, CAPTIONS, 2, 5)
    assert len(fewer) == 4 and len({clip.clip for clip in fewer}) == 2
    assert {clip.clip for clip in fewer if clip.model == MODELS[0]} == {clip.clip for clip in fewer if clip.model == MODELS[1]}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{c}/secret_model --output {o}/s.html", "--captions is not given; a page needs it"),
        ("{c}/secret_model --captions {c}/captions.jsonl", "--output is not given"),
        ("{c}/secret_model --captions {c}/captions.jsonl --output {o}/s.txt", "allowed: a file that ends in .html"),
        ("{c}/nowhere --captions {c}/captions.jsonl --output {o}/s.html", "nowhere', which is no folder"),
        (
            "{c}/secret_model {c}/secret_model --captions {c}/captions.jsonl --output {o}/s.html",
            "folder names one folder twice; give each once",
        ),
        ("{c}/secret_model --captions {c}/none.csv --output {o}/s.html", "none.csv', and there is no such file"),
        (MAKE + " --clips 4", "clips is 4; allowed: 1 to 3"),
        (MAKE + " --fps 0", "--fps is 0"),
        (MAKE + " --seed -1", "--seed is -1"),
        (MAKE + " --images {c}/other_method", "lacks the pictures of 2 clips, three for one"),
        (MAKE + " --key {o}", "which is a folder; name a file"),
        ("--results {o}/a.json", "--results is given without --key"),
        ("--results {o}/a.json --key {o}/key.json", "key.json', and there is no such file"),
        ("--results {o}/a.json --captions {c}/captions.jsonl", "--captions is for making a page; leave it or --results out"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path, line, words):
    result = run(line)
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
    assert not list(tmp_path.glob("*.html"))


def test_clips_and_captions_must_belong_together(clips, tmp_path):
    folders = [clips / model for model in MODELS]
    with pytest.raises(InputError, match=r"folder secret_model lacks 1 of the 4 clips of .*: four"):
        shuffled_clips(folders, {**CAPTIONS, "four": "no clip"}, None, 0)
    with pytest.raises(InputError, match=r"captions lacks 1 of the 3 clips of .*: three"):
        shuffled_clips(folders, {name: CAPTIONS[name] for name in ("one", "two")}, None, 0)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.csv", "path,caption\na.mp4,\n", "row 1 has no path or no caption"),
        ("c.csv", "file,caption\na.mp4,text\n", "row 1 has no path or no caption"),
        ("c.csv", "path,caption\na.mp4,text\nb/a.webp,text\n", "two captions for 'a'"),
        ("c.jsonl", '{"path": "a.mp4", "caption": 3}', "row 1 has no path or no caption"),
        ("c.jsonl", "[1]", r"captions c\.jsonl, line 1 is '\[1\]'; it must be a JSON object"),
        ("c.jsonl", "{", "line 1 is no JSON"),
        pytest.param("c.jsonl", "[" * 100_000, "line 1 is nested too deeply", id="nested deeply"),
        ("c.txt", "a", "its ending is not known"),
    ],
)
def test_captions_that_cannot_be_read(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        read_captions(tmp_path / name)


def test_captions_by_name(tmp_path):
    (tmp_path / "c.csv").write_text('path,caption\nx/a.mp4,"one, two\n three"\nfolder.1,four\n', encoding="utf-8-sig")
    assert read_captions(tmp_path / "c.csv") == {"a": "one, two three", "folder.1": "four"}


KEY = SheetKey("s", {str(n): (model, clip) for n, (model, clip) in enumerate([(m, c) for m in "AB" for c in "xyz"], 1)})


def rated(*numbers: int, fidelity: int, alignment: int = 3, quality: int = 3) -> dict:
    return {str(n): {"fidelity": fidelity, "alignment": alignment, "quality": quality} for n in numbers}


def test_means_by_hand():
    """Model A: clip x has 5 and 2, y has 4, z has 3; B has one rated clip."""
    first = Ratings("Ann", rated(1, fidelity=5, quality=1) | rated(2, fidelity=4, quality=1))
    second = Ratings("Bo", rated(1, fidelity=2, quality=1) | rated(3, fidelity=3, quality=1) | rated(4, fidelity=2))
    found = model_scores([first, second], KEY)
    assert (found["A"].clips, found["A"].raters, found["B"].clips, found["B"].raters) == (3, 2, 1, 1)
    fidelity = found["A"].scores["fidelity"]
    assert fidelity.mean == pytest.approx((3.5 + 4 + 3) / 3)
    assert 3 <= fidelity.low < fidelity.mean < fidelity.high <= 4
    # All ones are ratings, not counts of something that is always right.
    assert (found["A"].scores["quality"].low, found["A"].scores["quality"].high) == pytest.approx((1, 1))
    assert (found["B"].scores["fidelity"].mean, found["B"].scores["fidelity"].low) == (2, 2)


def test_the_paper_stands_apart():
    table = as_table(model_scores([Ratings("Ann", rated(1, 4, fidelity=5))], KEY))
    methods = list(table.columns[0].cells)
    assert methods == ["A", "B", *(f"paper: {method}" for method in RATINGS)]
    assert table.rows[1].end_section and not table.rows[0].end_section
    assert [column.header for column in table.columns] == ["method", *CRITERIA, "clips", "raters"]


def test_from_saved_files_to_the_table(run, tmp_path):
    assert run(MAKE).exit_code == 0
    key = json.loads((tmp_path / "sheet.key.json").read_text())
    for rater, better in (("Ann", 5), ("Bo", 4)):
        ratings = {
            number: dict.fromkeys(CRITERIA, better if clip["model"] == "secret_model" else 2)
            for number, clip in key["clips"].items()
        }
        saved = {"sheet": key["sheet"], "rater": rater, "ratings": ratings}
        (tmp_path / f"{rater}.json").write_text(json.dumps(saved))
    files = " ".join(str(path) for path in sorted(tmp_path.glob("*.json")))  # the key too, as the shell's *.json
    result = run(f"--results {files} --key {tmp_path}/sheet.key.json")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if "secret_model" in line)
    assert line.split() == ["secret_model", *["4.50", "±0.00"] * 3, "3", "2"]
    assert "paper: DreamVideo" in result.stdout


GOOD = rated(1, fidelity=3)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ({"sheet": "other", "rater": "Cy", "ratings": GOOD}, "is of sheet 'other', but the key is of 's'"),
        ({"sheet": "s", "rater": "Cy", "ratings": rated(9, fidelity=3)}, "rates clip '9' of a sheet of 6"),
        ({"sheet": "s", "rater": "Cy", "ratings": rated(1, fidelity=6)}, "each a whole number from 1 to 5"),
        ({"sheet": "s", "rater": "Cy", "ratings": rated(1, fidelity=True)}, "each a whole number"),
        ({"sheet": "s", "rater": "Cy", "ratings": {"1": {"fidelity": 3}}}, "rates clip 1 with {'fidelity': 3}"),
        ({"sheet": "s", "rater": "Ann", "ratings": GOOD}, "is a second file of the rater 'Ann'"),
        ({"sheet": "s", "ratings": GOOD}, "holds no ratings"),
        ([1], "it must be a JSON object"),
        pytest.param("[" * 100_000, "is nested too deeply", id="nested deeply"),
        ("{", "cy.json cannot be read as --results: it is no JSON"),
        (None, "there is no such file"),
    ],
)
def test_results_that_cannot_be_used(run, tmp_path, saved, words):
    clips = {number: {"model": model, "clip": clip} for number, (model, clip) in KEY.clips.items()}
    (tmp_path / "key.json").write_text(json.dumps({"sheet": "s", "clips": clips}))
    (tmp_path / "ann.json").write_text(json.dumps({"sheet": "s", "rater": "Ann", "ratings": GOOD}))
    if saved is not None:
        (tmp_path / "cy.json").write_text(saved if isinstance(saved, str) else json.dumps(saved))
    result = run("--results {o}/ann.json {o}/cy.json --key {o}/key.json")
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize("key", ["[]", '{"sheet": "s"}', '{"sheet": [5], "clips": {}}', '{"sheet": "s", "clips": {"1": "A"}}'])
def test_a_key_that_is_none(run, tmp_path, key):
    (tmp_path / "key.json").write_text(key)
    result = run("--results {o}/ann.json --key {o}/key.json")
    words = "it must be a JSON object" if key == "[]" else "which is no key"
    assert result.exit_code == 1 and words in " ".join(result.stderr.split())


def test_nothing_rated(run, tmp_path):
    (tmp_path / "key.json").write_text('{"sheet": "s", "clips": {}}')
    (tmp_path / "ann.json").write_text(json.dumps({"sheet": "s", "rater": "Ann", "ratings": {}}))
    result = run("--results {o}/ann.json --key {o}/key.json")
    assert result.exit_code == 1 and "hold no rated clip" in " ".join(result.stderr.split())
