"""Public data sets' layouts, and clips made of them: shared, gone on with, never made twice."""

import json
import shlex

import pytest
import torch
from metric_networks import write_network
from safetensors.torch import load_file
from tiny import DYNAMICRAFTER, random_pipeline
from typer.testing import CliRunner

from dreamvideo_core import cli
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.evaluation.captions import read_captions
from dreamvideo_core.evaluation.classifier import SpriteClassifier, save_classifier
from dreamvideo_core.evaluation.datasets import Selection, open_dataset
from dreamvideo_core.evaluation.generation import Plan, claim, count_skipped, fingerprint, generate, prepare
from dreamvideo_core.media.clip_files import read_clip
from dreamvideo_core.media.images import fit_image
from dreamvideo_core.media.video import save_clip
from dreamvideo_core.models import precision
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.sprites import render, sample_clip, sentence
from dreamvideo_core.sprites.scene import seeded

SELECTION = Selection(frames=3, height=16, width=16, stride=2)
SETTINGS = {
    "clips": 3, "seed": 4, "modes": ("t2v", "i2v", "ti2v"), "stride": 2, "num_frames": 3, "height": 16, "width": 16, "steps": 1,
    "text_scale": 1.0, "image_scale": 1.0, "order": "text_first", "checkpoint": "tiny.safetensors", "weights": "0",
}  # fmt: skip


def video(path, frames: int = 5):
    """A video of the small world; its ending is what a data set calls it, its content H.264 all the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = sample_clip(seeded("validation", 1, len(path.stem)))
    save_clip(path.with_suffix(".mp4"), render(clip, num_frames=frames, height=24, width=32))
    path.with_suffix(".mp4").rename(path)


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "UCF-101"
    for number in (1, 2):
        video(root / "ApplyEyeMakeup" / f"v_ApplyEyeMakeup_g0{number}_c01.avi")
        video(root / "YoYo" / f"v_YoYo_g0{number}_c01.avi")
    video(root / "YoYo" / "v_YoYo_g09_c01.avi", frames=4)  # a window of three frames, every second one, spans five
    (root / "YoYo" / "v_YoYo_g10_c01.avi").write_bytes(b"no video" * 40)
    return root


@pytest.fixture(scope="module")
def msrvtt(tmp_path_factory):
    root = tmp_path_factory.mktemp("msrvtt")
    table = {
        "videos": [{"video_id": f"video{i}", "split": "test" if i else "train"} for i in range(4)],
        "sentences": [
            {"video_id": f"video{i}", "caption": f"thing {i}  seen by {who}" if who else " "}
            for i in range(4)
            for who in range(5)
        ],
    }
    (root / "test_videodatainfo.json").write_text(json.dumps(table))
    for i in range(1, 4):
        video(root / "TestVideo" / f"video{i}.mp4")
    return root


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return random_pipeline()


def plan(**settings) -> Plan:
    return Plan(**{"dataset": "sprites", "root": "", **SETTINGS, **settings})


def test_ucf101_is_read_with_its_classes_in_words(ucf101):
    found = open_dataset("ucf101", ucf101, SELECTION, 0)
    clips = list(found.clips)
    assert {clip.caption for clip in clips} == {"apply eye makeup", "yo yo"} and len(clips) == 6
    assert "not published" in found.prompts and "0, 2, 4" in found.frames
    clip = next(c for c in clips if c.name == "v_ApplyEyeMakeup_g01_c01")
    whole = read_clip(ucf101 / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi", 8).frames
    torch.testing.assert_close(clip.read(), fit_image(whole[::2], 16, 16, "crop"))
    again, other = ([c.name for c in open_dataset("ucf101", ucf101, SELECTION, seed).clips] for seed in (0, 1))
    assert again == [c.name for c in clips] != other


def test_the_archives_own_folder_may_stand_between(ucf101):
    assert len(list(open_dataset("ucf101", ucf101.parent, SELECTION, 0).clips)) == 6


def test_msrvtts_test_split_is_read_with_one_caption_each(msrvtt):
    clips = list(open_dataset("msrvtt", msrvtt, SELECTION, 0).clips)
    assert sorted(clip.name for clip in clips) == ["video1", "video2", "video3"]
    for clip in clips:
        assert clip.caption.startswith(f"thing {clip.name[-1]}  seen by ")
        assert clip.read().shape == (3, 3, 16, 16)
    assert [c.caption for c in open_dataset("msrvtt", msrvtt, SELECTION, 0).clips] == [c.caption for c in clips]


def test_layouts_that_are_none(tmp_path, msrvtt):
    for name, words in (("ucf101", "no class folders of .avi files"), ("msrvtt", 'no .json has "videos" of the split test')):
        with pytest.raises(InputError, match=words):
            open_dataset(name, tmp_path, SELECTION, 0)
        with pytest.raises(InputError, match="which is no folder"):
            open_dataset(name, tmp_path / "none", SELECTION, 0)
    (tmp_path / "a.json").write_text((msrvtt / "test_videodatainfo.json").read_text())
    with pytest.raises(InputError, match="lacks the files or captions of 3 of them, video1 for one"):
        open_dataset("msrvtt", tmp_path, SELECTION, 0)
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is nested too deeply"):
        open_dataset("msrvtt", tmp_path, SELECTION, 0)
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match="is no JSON"):
        open_dataset("msrvtt", tmp_path, SELECTION, 0)
    (tmp_path / "a.json").write_text('{"videos": [{"video_id": "video1", "split": "test"}], "sentences": [{"sen_id": 1}]}')
    with pytest.raises(InputError, match="is no annotation of MSR-VTT"):
        open_dataset("msrvtt", tmp_path, SELECTION, 0)


def test_clips_that_cannot_be_used_are_left_out_and_listed(ucf101, tmp_path):
    order = [c.name for c in open_dataset("ucf101", ucf101, SELECTION, 0).clips]
    usable = [name for name in order if "g09" not in name and "g10" not in name]
    prepare(tmp_path, plan(clips=4), open_dataset("ucf101", ucf101, SELECTION, 0))
    assert list(read_captions(tmp_path / "captions.jsonl")) == usable
    assert {p.name for p in (tmp_path / "reference").iterdir()} == set(usable)
    assert count_skipped(tmp_path) == len([name for name in order[: order.index(usable[-1])] if name not in usable])
    with pytest.raises(InputError, match=r"--clips is 5, but sprites has 4 clips that can be used and 2 that cannot \(v_YoYo"):
        prepare(tmp_path / "more", plan(clips=5), open_dataset("ucf101", ucf101, SELECTION, 0))


def prepared(folder):
    claim(folder, plan())
    prepare(folder, plan(), open_dataset("sprites", None, SELECTION, 4))
    return folder


def test_every_clip_is_what_the_pipeline_makes(pipeline, tmp_path):
    generate(prepared(tmp_path), plan(), pipeline)
    for index in range(3):
        scene = sample_clip(seeded("test", 4, index))
        true = read_clip(tmp_path / "reference" / f"scene{index:05d}", 8).frames
        torch.testing.assert_close(true, render(scene, num_frames=3, height=16, width=16), rtol=0, atol=1 / 127)
        for mode, prompt, image in (("t2v", sentence(scene), None), ("i2v", "", true[:1]), ("ti2v", sentence(scene), true[:1])):
            made = pipeline(prompt, image, seed=4 + index, **plan().sampling)[0]
            found = read_clip(tmp_path / mode / f"scene{index:05d}", 8).frames
            torch.testing.assert_close(found, made, rtol=0, atol=1 / 127)


def test_shares_of_processes_make_what_one_makes_and_nothing_twice(pipeline, tmp_path):
    alone, shared = prepared(tmp_path / "alone"), prepared(tmp_path / "shared")
    generate(alone, plan(), pipeline)
    made = []

    def counting(*arguments, **options):
        made.append(options["seed"])
        return pipeline(*arguments, **options)

    counting.device = pipeline.device
    heard = []
    generate(shared, plan(), counting, (1, 2), heard.append)
    assert len(made) == 4 and heard == [1, 2, 3, 4]
    generate(shared, plan(), counting, (0, 2))
    assert len(made) == 9
    pictures = sorted(p.relative_to(alone) for p in alone.rglob("*.png"))
    assert len(pictures) == 4 * 3 * 3
    assert all((alone / p).read_bytes() == (shared / p).read_bytes() for p in pictures)

    (shared / "i2v" / "scene00001").rename(tmp_path / "away")  # what a process that was killed has not made
    before = {p: p.stat().st_mtime_ns for p in shared.rglob("*.png")}
    generate(shared, plan(), counting)
    prepare(shared, plan(), open_dataset("sprites", None, SELECTION, 4))
    assert len(made) == 10 and made[-1] == 4 + 1
    assert all(p.stat().st_mtime_ns == time for p, time in before.items())


def test_a_folder_belongs_to_one_plan(tmp_path):
    claim(tmp_path / "made", plan())
    claim(tmp_path / "made", plan())
    with pytest.raises(InputError, match=r"made otherwise: weights '0' \(now '1'\), seed 4 \(now 5\); name another folder"):
        claim(tmp_path / "made", plan(seed=5, weights="1"))
    with pytest.raises(InputError, match=r"made otherwise: dtype 'fp32' \(now 'bf16'\)"):
        claim(tmp_path / "made", plan(dtype="bf16"))
    manifest = json.loads((tmp_path / "made" / "manifest.json").read_text())
    del manifest["dtype"]  # as older versions wrote it
    (tmp_path / "made" / "manifest.json").write_text(json.dumps(manifest))
    claim(tmp_path / "made", plan())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and was not made by `evaluate`"):
        claim(tmp_path, plan())
    for text in ("{", "[" * 100_000, "[]"):
        (tmp_path / "made" / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=r"manifest\.json cannot be read as a manifest of clips"):
            claim(tmp_path / "made", plan())


def test_other_weights_have_another_fingerprint(tmp_path):
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.safetensors").write_text(text)
    a, b, c = (fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c
    assert fingerprint(tmp_path / "a" / "m.safetensors") == a


@pytest.fixture
def run(tmp_path, pipeline, monkeypatch, ucf101):
    """Runs `evaluate`; {u} is UCF101, {o} an empty folder that holds the models."""
    pipeline.save(tmp_path / "tiny.safetensors")
    pipeline.save(tmp_path / "text.safetensors", parts=("unet", "text_encoder", "vae"))
    save_classifier(SpriteClassifier(), tmp_path / "classifier.safetensors")
    write_network(tmp_path / "n.pt")
    monkeypatch.setattr("dreamvideo_core.sampling.pipeline.SHIPPED", tmp_path / "tiny.safetensors")
    monkeypatch.setattr("dreamvideo_core.evaluation.classifier.SHIPPED_CLASSIFIER", tmp_path / "classifier.safetensors")

    def run(line: str):
        return CliRunner().invoke(cli.app, ["evaluate", *shlex.split(line.format(u=ucf101, o=tmp_path)), "--device", "cpu"])

    return run


def test_the_small_world_by_the_papers_metrics(run, tmp_path):
    line = "--metrics fvd,is,fff_ssim --output {o}/made --clips 2 --steps 1 --json {o}/figures.json --report {o}/report"
    result = run(line)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["label"] for row in figures["rows"]] == ["t2v", "i2v", "ti2v", "reference"]
    assert figures["protocol"]["prompts"].startswith("the small world's own sentences")
    assert "classifier.safetensors, 96 values" in figures["protocol"]["FVD's features"]
    assert {"model", "data", "first frame", "seeds", "sampling", "skipped", "measured at", "clips"} <= set(figures["protocol"])
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "made").rglob("*")}
    assert run(line).exit_code == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "made").rglob("*")} == times


def test_a_folder_goes_on_in_the_precision_that_was_chosen(run, tmp_path, monkeypatch):
    """Not under the name of the choice: what `auto` is depends on the machine."""
    line = "--metrics fff_ssim --output {o}/made --clips 1 --steps 1 --modes t2v --json {o}/figures.json"
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: True)
    assert run(line).exit_code == 0
    assert json.loads((tmp_path / "figures.json").read_text())["protocol"]["precision"] == "fp32"
    assert run(f"{line} --dtype fp32").exit_code == 0
    monkeypatch.setattr(precision, "LARGE", 0)
    assert "made otherwise: dtype 'fp32' (now 'bf16')" in run(line).stderr
    assert run(f"{line} --dtype fp32").exit_code == 0


def test_a_data_set_is_made_first(run, tmp_path):
    result = run(
        "--model {o}/tiny.safetensors --dataset ucf101 {u} --clips 3 --stride 1 --steps 1 --modes ti2v --output {o}/made "
        "--metrics fvd,fff_ssim --fvd-network {o}/n.pt --json {o}/figures.json"
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["label"] for row in figures["rows"]] == ["ti2v", "reference"]
    assert "VidRD" in figures["protocol"]["prompts"] and len(figures["names"]) == 3


def test_a_model_that_sees_the_picture_makes_clips_of_pictures_alone(run, tmp_path):
    random_pipeline(DYNAMICRAFTER).save(tmp_path / "photo.safetensors")
    line = "--model {o}/photo.safetensors --metrics fff_ssim --output {o}/made --clips 1 --steps 1 --json {o}/figures.json"
    result = run(f"{line} --model-fps 12")
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [row["label"] for row in figures["rows"]] == ["i2v", "ti2v", "reference"]
    assert figures["protocol"]["sampling"] == "1 steps of DDIM, scales 1.5 / 1.5, image_first, rescale 0.7, eta 1, fps 12"
    result = run(line)
    assert "holds clips that were made otherwise: fps 12 (now 24); name another folder" in result.stderr
    result = run(f"{line} --modes t2v")
    assert "makes video from a picture; allowed: i2v, ti2v" in result.stderr


@pytest.mark.parametrize(("given", "words"), [
    ("--metrics fff_ssim", "--output is not given; name a folder"),
    ("--dataset kinetics {u} --output {o}/made", "--dataset is 'kinetics'; allowed: ucf101, msrvtt"),
    ("--dataset ucf101 {o} --metrics fff_ssim --output {o}/made", "no class folders of .avi files"),
    ("--dataset ucf101 {u} --metrics is --output {o}/made", "--metrics has is, which needs --is-network"),
    ("--metrics is --clips 0 --output {o}/made", "--clips is 0; allowed: 1 or more"),
    ("--metrics fvd --clips 1 --output {o}/made", "fvd is asked of 1 clip"),
    ("--metrics is --stride 0 --output {o}/made", "--stride is 0; allowed: 1 or more"),
    ("--metrics is --modes v2v --output {o}/made", "--modes is 'v2v'; allowed: t2v, i2v, ti2v"),
    ("--metrics is --modes ti2v --model {o}/text.safetensors --output {o}/made", "has no retention branch"),
    ("--metrics is --is-network {o}/tiny.safetensors --output {o}/made", "which is no classifier of sprites"),
    ("--metrics fff_ssim --output {o}", "which exists and was not made by `evaluate`"),
    ("--metrics fff_ssim --output {o}/made --chain 2", "--chain is given with --dataset, or with --metrics and no --generated"),
])  # fmt: skip
def test_input_that_cannot_be_used_is_one_line(run, tmp_path, given, words):
    result = run(given)
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_training_the_classifier(tmp_path):
    line = f"train-classifier --output {tmp_path}/c.safetensors --steps 3 --batch 4"
    result = CliRunner().invoke(cli.app, shlex.split(line))
    assert result.exit_code == 0, result.output
    assert "of 500 validation clips named rightly, 37 labels" in result.stdout
    first = load_file(tmp_path / "c.safetensors")
    assert CliRunner().invoke(cli.app, shlex.split(line)).exit_code == 0
    assert all(torch.equal(first[k], v) for k, v in load_file(tmp_path / "c.safetensors").items())
    for given, words in (
        ("--output c.pt", "ends in .safetensors"),
        ("--output c.safetensors --batch 1", "--batch is 1; allowed"),
    ):
        assert words in CliRunner().invoke(cli.app, ["train-classifier", *given.split()]).stderr
