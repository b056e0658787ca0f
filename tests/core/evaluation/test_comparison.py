"""Any model's clips by the paper's metrics: folders in, figures, a table and a page out."""

import json
import re
import shlex

import pytest
import torch
from metric_networks import write_clip_folder, write_network
from typer.testing import CliRunner

from dreamvideo_core import cli
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.clips import ClipSet, ClipShape, check_pairs, common_shape, open_sets
from dreamvideo_core.evaluation.comparison import Comparison, MetricNetworks, compare
from dreamvideo_core.evaluation.comparison_report import markdown_table
from dreamvideo_core.evaluation.distribution import frechet_distance, inception_score
from dreamvideo_core.evaluation.metrics import first_frame_ssim, measure_interval
from dreamvideo_core.evaluation.networks import open_network
from dreamvideo_core.evaluation.paper import COLUMNS, PAPER_ROWS
from dreamvideo_core.media.video import save_clip
from dreamvideo_core.sprites import render, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

CPU = torch.device("cpu")
CLIPS = [sample_clip(seeded("validation", 3, index)) for index in range(4)]
SIZE = {"num_frames": 3, "height": 32, "width": 48}


def true_clip(index: int) -> torch.Tensor:
    return render(CLIPS[index], **SIZE)


def frozen_clip(index: int) -> torch.Tensor:
    return true_clip(index)[:1].expand(3, -1, -1, -1)


def spoilt_clip(index: int) -> torch.Tensor:
    noise = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(index))
    return (true_clip(index) + 0.3 * (index + 1) * noise).clamp(-1, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Clips of three models beside the true ones, and everything that looks at them."""
    folder = tmp_path_factory.mktemp("comparison")
    for label, make in {"true": true_clip, "same": true_clip, "frozen": frozen_clip, "spoilt": spoilt_clip}.items():
        for index in range(len(CLIPS)):
            save_clip(folder / label / f"c{index}", make(index))
    for index in range(len(CLIPS)):
        save_clip(folder / "videos" / f"c{index}.mp4", true_clip(index))
    rows = [{"path": f"c{index}", "caption": sentence(clip)} for index, clip in enumerate(CLIPS)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_network(folder / "network.pt")
    write_clip_folder(folder / "clip")
    return folder


@pytest.fixture
def run(files, tmp_path):
    """Runs `evaluate`; {f} is the folder of files, {o} an empty one."""

    def run(line: str):
        return CliRunner().invoke(cli.app, ["evaluate", *shlex.split(line.format(f=files, o=tmp_path)), "--device", "cpu"])

    return run


def pixels(path) -> torch.Tensor:
    from dreamvideo_core.media.clip_files import read_clip

    return read_clip(path, 8).frames


def test_values_are_those_of_the_parts(files):
    names = [f"c{index}" for index in range(len(CLIPS))]
    sets = open_sets([files / "same", files / "spoilt"], "--generated")
    reference = open_sets([files / "true"], "--reference")[0]
    shape = common_shape([*sets, reference], None, None)
    assert shape == ClipShape(3, 32, 48)
    network = open_network(files / "network.pt", "--fvd-network", "features", shape.sizes, CPU)
    heard = []
    comparison = Comparison(sets, names, shape, ("fvd", "is", "fff_ssim"), reference)
    rows = compare(comparison, MetricNetworks(network, network), heard.append)
    assert heard == list(range(1, 9)) and [row.label for row in rows] == ["same", "spoilt", "reference"]
    features = {label: torch.stack([network(pixels(files / label / n)) for n in names]) for label in ("true", "spoilt")}
    same, spoilt, true = rows
    assert same.of_set["fvd"] == pytest.approx(0, abs=1e-9)
    assert spoilt.of_set["fvd"] == pytest.approx(frechet_distance(features["spoilt"], features["true"]))
    assert true.of_set == {"is": pytest.approx(inception_score(features["true"]))} and not true.of_clips
    assert same.of_clips["fff_ssim"] == pytest.approx([1.0] * 4, abs=1e-5)
    first = (
        torch.stack([pixels(files / "spoilt" / n)[0] for n in names]),
        torch.stack([pixels(files / "true" / n)[0] for n in names]),
    )
    assert spoilt.of_clips["fff_ssim"] == pytest.approx(first_frame_ssim(*first).tolist(), abs=1e-5)
    assert same.curves["fff_ssim"] == pytest.approx(true.curves["fff_ssim"], abs=1e-5)
    assert len(true.curves["fff_ssim"]) == 3 and true.curves["fff_ssim"][2] < true.curves["fff_ssim"][0] == pytest.approx(
        1, abs=1e-5
    )


def test_the_command_writes_figures_a_table_and_a_page(run, tmp_path):
    result = run(
        "--generated {f}/frozen --generated {f}/spoilt --reference {f}/true --captions {f}/captions.jsonl --fvd-network "
        "{f}/network.pt --is-network {f}/network.pt --clip-folder {f}/clip --json {o}/figures.json --report {o}/report"
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    frozen, spoilt, true = figures["rows"]
    assert [frozen["label"], spoilt["label"], true["label"]] == ["frozen", "spoilt", "reference"]
    assert frozen["fff_ssim"]["mean"] == pytest.approx(1, abs=1e-5)
    assert spoilt["fff_ssim"]["mean"] < 0.9
    assert frozen["fff_clip"]["mean"] == pytest.approx(1, abs=1e-5)
    assert -1 <= spoilt["clipsim"]["low"] <= spoilt["clipsim"]["mean"] <= spoilt["clipsim"]["high"] <= 1
    assert set(figures["metrics"]) == {"fvd", "is", "clipsim", "fff_clip", "fff_ssim"}
    protocol = figures["protocol"]
    assert protocol["measured at"].startswith("3 frames of 48 x 32") and protocol["clips"] == "4"
    assert {"prompts", "first frame", "seeds"} <= set(protocol)
    assert any("fewer clips (4) than FVD needs for its 6 features" in note for note in figures["notes"])
    assert "fewer clips (4)" in " ".join(result.output.split())

    table = (tmp_path / "report" / "table.md").read_text().splitlines()
    head = [cell.strip() for cell in table[0].strip("|").split("|")]
    assert head[:2] == ["method", "FVD ↓"] and head.count("paper: UCF101 FVD ↓") == 1
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2 : 2 + 3 + len(PAPER_ROWS)]]
    ours, printed = lines[:3], lines[3:]
    assert all(not any(line[-len(COLUMNS) :]) for line in ours)
    assert all(not any(line[1 : -len(COLUMNS)]) for line in printed)
    assert printed[2][0] == "paper, Table 1: DreamVideo" and "197.66" in printed[2] and "20.55" in printed[4]

    page = (tmp_path / "report" / "index.html").read_text()
    assert not re.search(r"https?://|src='(?!data:)", page)
    assert page.count("data:image/webp;base64,") == 2 + 2 * 4  # two plots, all clips of two models
    assert not list(tmp_path.rglob(".*"))


def test_a_table_has_the_columns_of_the_rows_that_it_is_given():
    report = {"metrics": ["fvd"], "rows": [{"label": "ours", "fvd": 1.0}]}
    assert markdown_table(report, ()).splitlines() == ["| method | FVD ↓ |", "| --- | --- |", "| ours | 1.000 |"]
    second = markdown_table(report, [row for row in PAPER_ROWS if row.table == 2]).splitlines()
    assert second[0].count("paper:") == 5
    assert [line.split(" | ")[0] for line in second[2:]] == [
        "| ours",
        "| paper, Table 2: DreamVideo T2V",
        "| paper, Table 2: DreamVideo TI2V",
    ]


def test_one_metric_needs_no_more_than_it_needs(run, tmp_path):
    result = run("--generated {f}/spoilt --metrics is --is-network {f}/network.pt --json {o}/figures.json --report {o}/report")
    assert result.exit_code == 0, result.output
    assert [set(row) for row in json.loads((tmp_path / "figures.json").read_text())["rows"]] == [{"label", "is", "curves"}]
    assert run("--generated {f}/videos --reference {f}/true --metrics fff_ssim").exit_code == 0


def test_frames_and_size_bring_clips_together(run, files, tmp_path):
    for index in range(2):
        save_clip(tmp_path / "a" / f"c{index}", true_clip(index))
        save_clip(tmp_path / "b" / f"c{index}.webp", render(CLIPS[index], num_frames=5, height=40, width=40))
    line = "--generated {o}/a --reference {o}/b --metrics fff_ssim --json {o}/figures.json"
    result = run(line)
    assert result.exit_code == 1 and "give --frames 3 to take the first ones" in result.stderr
    result = run(f"{line} --frames 3")
    assert result.exit_code == 1 and "is 48 x 32 pixels" in result.stderr and "give --size" in result.stderr
    assert run(f"{line} --frames 3 --size 24").exit_code == 0
    assert json.loads((tmp_path / "figures.json").read_text())["protocol"]["measured at"].startswith("3 frames of 24 x 24")
    assert "--frames is 4, but" in run(f"{line} --frames 4 --size 24").stderr


@pytest.mark.parametrize(("given", "words"), [
    ("--generated {o}/none --metrics is --is-network {f}/network.pt", "--generated is '{o}/none', which is no folder"),
    ("--generated {o} --metrics is --is-network {f}/network.pt", "in which there is no clip"),
    ("--generated {f}/same --generated {f}/same --metrics is --is-network {f}/network.pt", "names one folder twice"),
    ("--generated {f}/same", "--metrics has fvd, which needs --reference"),
    ("--generated {f}/same --metrics clipsim", "--metrics has clipsim, which needs --captions"),
    ("--generated {f}/same --reference {f}/true --metrics fvd", "--metrics has fvd, which needs --fvd-network; give"),
    ("--generated {f}/same --metrics is", "--metrics has is, which needs --is-network"),
    ("--generated {f}/same --reference {f}/true --metrics fff_clip", "--metrics has fff_clip, which needs --clip-folder"),
    ("--generated {f}/same --metrics lpips", "--metrics is 'lpips'; allowed: fvd, is, clipsim, fff_clip, fff_ssim"),
    ("--generated {f}/same --metrics is --is-network {f}/none.pt", "none.pt', and there is no such file"),
    ("--generated {f}/same --metrics is --is-network {f}/captions.jsonl", "which is no TorchScript file"),
    ("--generated {f}/same --reference {o}/few --metrics fff_ssim",
     "--reference lacks 3 of the 4 clips of --generated same: c1, c2, c3"),
    ("--generated {o}/few --captions {f}/captions.jsonl --metrics clipsim --clip-folder {f}/clip",
     "--generated few lacks 3 of the 4 clips of --captions"),
    ("--generated {f}/same --captions {o}/few.csv --metrics clipsim --clip-folder {f}/clip",
     "--captions lacks 3 of the 4 clips of --generated same"),
    ("--generated {o}/broken --metrics is --is-network {f}/network.pt", "c0.mp4' is no readable clip"),
    ("--generated {o}/few --reference {o}/few2 --metrics fvd --fvd-network {f}/network.pt",
     "fvd is asked of 1 clip; allowed: 2"),
    ("--generated {f}/same --size 4 --metrics is --is-network {f}/network.pt", "are 4 x 4 pixels; allowed: 6 x 6 or more"),
    ("--generated {f}/same --frames 0 --metrics is", "--frames is 0; allowed: 1 or more"),
    ("--generated {f}/same --metrics is --json {o}", "--json is '{o}', which is a folder"),
    ("--generated {f}/same --metrics is --report {f}/network.pt", "network.pt', which is a file; name a folder"),
    ("--generated {f}/same --steps 4", "--steps is given with --generated; allowed: without --generated"),
    ("--size 4", "--size is given without --generated, --dataset and --metrics; allowed: with --generated"),
])  # fmt: skip
def test_input_that_cannot_be_used_is_one_line(run, files, tmp_path, given, words):
    save_clip(tmp_path / "few" / "c0", true_clip(0))
    save_clip(tmp_path / "few2" / "c0", true_clip(0))
    (tmp_path / "few.csv").write_text("path,caption\nc0,a circle\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "c0.mp4").write_bytes(b"no video" * 40)
    result = run(given)
    assert result.exit_code == 1
    assert words.format(f=files, o=tmp_path) in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_names_tell_sets_apart_where_folders_do_not(tmp_path):
    for parent in ("one", "two"):
        save_clip(tmp_path / parent / "ti2v" / "c0", true_clip(0))
    labels = [clips.label for clips in open_sets([tmp_path / p / "ti2v" for p in ("one", "two")], "--generated")]
    assert labels == [str(tmp_path / p / "ti2v") for p in ("one", "two")]
    (tmp_path / "two" / "ti2v").rename(tmp_path / "reference")
    assert [clips.label for clips in open_sets([tmp_path / "reference"], "--generated")] == [str(tmp_path / "reference")]


def test_pairs_are_by_name():
    assert check_pairs({"a": ["y", "x"], "b": {"x": 1, "y": 2}}) == ["x", "y"]
    with pytest.raises(InputError, match=r"b lacks 1 of the 2 clips of a: y\."):
        check_pairs({"a": ["x", "y"], "b": ["x"]})


def test_a_header_that_promises_too_much_is_found_out(tmp_path):
    save_clip(tmp_path / "c.mp4", render(CLIPS[0], num_frames=9, height=32, width=48))
    clips = ClipSet("made", {"c": tmp_path / "c.mp4"})
    from dreamvideo_core.evaluation.clips import read_clip_at

    assert common_shape([clips], None, None) == ClipShape(9, 32, 48)
    with pytest.raises(InputError, match="ends after 9 of 12 frames"):
        read_clip_at(tmp_path / "c.mp4", ClipShape(12, 32, 48))


def test_the_interval_of_a_measure_that_does_not_vary():
    assert measure_interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    low, high = measure_interval([0.0, 1.0, 1.0, 1.0])
    assert low < 0.75 < high
