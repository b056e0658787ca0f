"""The command line, as a person types it."""

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import lvdm_files
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import DYNAMICRAFTER, TINY, random_pipeline
from typer.testing import CliRunner

from dreamvideo_core import cli
from dreamvideo_core.media.clip_files import read_clip
from dreamvideo_core.models import precision
from dreamvideo_core.training import recipe as recipes
from dreamvideo_core.weights.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with models, one without a branch and two whose U-Net sees the picture, and pictures."""
    folder = tmp_path_factory.mktemp("files")
    random_pipeline().save(folder / "tiny.safetensors")
    random_pipeline().save(folder / "text.safetensors", parts=("unet", "text_encoder", "vae"))
    random_pipeline(DYNAMICRAFTER).save(folder / "photo.safetensors")
    two_pictures = replace(DYNAMICRAFTER, unet=replace(DYNAMICRAFTER.unet, image_latents="ends"))
    random_pipeline(two_pictures).save(folder / "ends.safetensors")
    random_pipeline(DYNAMICRAFTER).save(folder / "pruned.safetensors", parts=("unet", "resampler", "vae"))
    Image.effect_noise((60, 20), 80).save(folder / "picture.png")
    Image.effect_noise((20, 60), 80).save(folder / "other.png")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "full").mkdir()
    (folder / "full" / "kept").write_text("kept")
    return folder


@pytest.fixture
def run(files, tmp_path, monkeypatch):
    """Runs a command; {f} is the folder of files, {o} an empty one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dreamvideo_core.sampling.pipeline.SHIPPED", files / "tiny.safetensors")

    def run(line: str):
        return CliRunner().invoke(cli.app, shlex.split(line.format(f=files, o=tmp_path)))

    return run


def frames(path) -> int:
    if path.is_dir():
        return len(list(path.glob("*.png")))
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    return Image.open(path).n_frames


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webp", "clip.gif", "clip", "new/clip.mp4"])
def test_a_clip_in_every_kind_of_file(run, tmp_path, name):
    result = run(f"generate --image {{f}}/picture.png --prompt 'it moves' --output {{o}}/{name} --device cpu")
    assert result.exit_code == 0, result.output
    assert str(tmp_path / name) in result.stdout
    assert frames(tmp_path / name) == 3
    assert not list(tmp_path.rglob(".*"))


def test_half_precision(run, tmp_path):
    for dtype in ("fp32", "bf16"):
        result = run(f"generate --image {{f}}/picture.png --prompt left --output {{o}}/{dtype} --dtype {dtype} --device cpu")
        assert result.exit_code == 0, result.output
    whole, half = (read_clip(tmp_path / dtype, fps=8).frames for dtype in ("fp32", "bf16"))
    assert 0 < (half - whole).norm() < 0.05 * whole.norm()


def test_every_option_of_a_model_that_sees_the_picture_reaches_the_clip(run, tmp_path):
    line = "generate --image {f}/picture.png --end-image {f}/other.png --prompt left --checkpoint {f}/ends.safetensors"
    own = "--order image_first --rescale 0.7 --eta 1 --model-fps 24 --frames 3"
    others = ("--end-image {f}/picture.png", "--order text_first --image-scale 4", "--rescale 0", "--eta 0", "--model-fps 3")
    for name, options in {"default": "", "own": own, **dict(zip("abcde", others, strict=True))}.items():
        result = run(f"{line} {options} --output {{o}}/{name} --device cpu")
        assert result.exit_code == 0, result.output
    clips = {path.name: read_clip(path, fps=8).frames for path in tmp_path.iterdir()}
    assert torch.equal(clips["own"], clips["default"])
    for name in "abcde":
        assert not torch.equal(clips[name], clips["default"]), name


def test_a_chain_of_a_model_that_sees_the_picture(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("left\nright\n")
    result = run(
        "chain --prompts prompts.txt --image {f}/picture.png --checkpoint {f}/photo.safetensors --eta 0 --model-fps 12 "
        "--rescale 0.5 --anchor --output {o}/long.webp --device cpu"
    )
    assert result.exit_code == 0, result.output
    assert frames(tmp_path / "long.webp") == 1 + 2 * 2


@pytest.mark.parametrize(
    ("line", "said", "warned"),
    [
        ("{f}/tiny.safetensors --image {f}/picture.png --prompt left", ("lacking nothing", "2 steps", "FFF_SSIM"), ""),
        (
            "{f}/photo.safetensors --image {f}/picture.png --prompt left --steps 3 --seed 4 --width 24 --height 8",
            ("3 frames of 24 x 8, 3 steps", "image_first, rescale 0.7, eta 1.0, fps 24, seed 4", "all values finite"),
            "",
        ),
        (
            "{f}/text.safetensors --image {f}/picture.png --prompt left",
            ("lacking retention", "motion", "fp32 on cpu"),
            "text.safetensors makes video from text only: --image is left out",
        ),
        (
            "{f}/ends.safetensors --image {f}/picture.png",
            ("FFF_SSIM", "last frame's SSIM"),
            "without --end-image the clip is a loop",
        ),
    ],
)
def test_a_model_is_checked(run, tmp_path, line, said, warned):
    result = run(f"check {line} --device cpu")
    assert result.exit_code == 0, result.output
    report, sheet = result.stdout.splitlines()
    assert all(words in report for words in said), report
    assert warned in result.stderr
    assert ("SSIM" in report) == ("text.safetensors" not in line)
    assert sheet == "check.png" and Image.open(tmp_path / sheet).width > 50


def test_a_model_that_gives_no_numbers_is_found_out(run, tmp_path):
    pipeline = random_pipeline()
    with torch.no_grad():
        pipeline.model.unet.conv_out.bias.fill_(float("nan"))
    pipeline.save(tmp_path / "broken.safetensors")
    result = run("check {o}/broken.safetensors --image {f}/picture.png --output {o}/sheet.png --device cpu")
    assert result.exit_code == 1
    assert "NOT ALL VALUES FINITE" in result.stdout and "gave values that are no numbers" in result.stderr
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize(("given", "words"), [
    ("{f}/none.safetensors", "none.safetensors: there is no such file"),
    ("{f}/pruned.safetensors --image {f}/picture.png", "pruned.safetensors has no image_encoder and no text_encoder"),
    ("{f}/photo.safetensors", "no image is given, but this model makes clips of a picture only"),
    ("{f}/photo.safetensors --image {f}/picture.png --end-image {f}/other.png", "this model takes no last picture"),
    ("{f}/tiny.safetensors --output {o}/sheet.mp4", "sheet.mp4'; allowed: a file that ends in .png, .jpg, .webp"),
    ("{f}/tiny.safetensors --steps 0", "--steps is 0; allowed: 1 to 1000"),
    ("{f}/tiny.safetensors --seed -1", "--seed is -1"),
])  # fmt: skip
def test_what_cannot_be_checked(run, tmp_path, given, words):
    result = run(f"check {given} --device cpu")
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.count("error: ") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("large", [False, True])
def test_the_precision_is_chosen_for_the_model(run, tmp_path, monkeypatch, large):
    monkeypatch.setattr(precision, "cpu_computes_in_bfloat16", lambda: True)
    if large:
        monkeypatch.setattr(precision, "LARGE", 0)
    for name, dtype in (("chosen", ""), ("auto", "--dtype auto"), ("told", f"--dtype {'bf16' if large else 'fp32'}")):
        result = run(f"generate --image {{f}}/picture.png --prompt left --output {{o}}/{name} --device cpu {dtype}")
        assert result.exit_code == 0, result.output
    chosen, auto, told = (read_clip(tmp_path / name, fps=8).frames for name in ("chosen", "auto", "told"))
    assert torch.equal(chosen, told) and torch.equal(auto, told)


def test_a_chain_of_sentences(run, tmp_path):
    (tmp_path / "prompts.txt").write_text("# a chain\nleft\n\nright\n")
    result = run("chain --prompts prompts.txt --image {f}/picture.png --seeds '- 9' --output {o}/long.webp --device cpu")
    assert result.exit_code == 0, result.output
    assert "stage 1 of 2, seed 0: left" in result.stderr and "stage 2 of 2, seed 9: right" in result.stderr
    assert frames(tmp_path / "long.webp") == 1 + 2 * 2


def test_what_is_cut_from_a_long_sentence_is_said(run):
    result = run(f"generate --prompt '{'red ' * 80}' --output {{o}}/clip.webp --device cpu")
    assert "--prompt has 80 tokens; the encoder reads the first 75" in result.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("--prompts {o}/none.txt", "none.txt', which is no file; give a text file with one sentence a line"),
        ("--prompts {o}/prompts.txt --seam blend", "--seam is 'blend'; allowed: merge, keep"),
        ("--prompts {o}/prompts.txt --frames 1", "--frames is 1; allowed: 2 or more"),
        ("--prompts {o}/prompts.txt --seeds '1 2 3'", "seeds names 3 seeds for 2 sentences"),
        ("--prompts {o}/prompts.txt --checkpoint {f}/text.safetensors", "has no retention branch"),
    ],
)
def test_bad_chains(run, tmp_path, given, words):
    (tmp_path / "prompts.txt").write_text("left\nright")
    result = run(f"chain {given} --output {{o}}/long.webp --device cpu")
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "long.webp").exists()


def test_every_option_reaches_the_clip(run, tmp_path):
    line = (
        "generate --image {f}/picture.png --prompt left --negative right --checkpoint {f}/tiny.safetensors --width 32 "
        "--height 24 --frames 2 --fit pad --steps 1 --text-scale 3 --image-scale 2 --order image_first --seed 5 --fps 4"
    )
    for number in range(2):
        result = run(f"{line} --output {{o}}/{number}")
        assert result.exit_code == 0, result.output
    first, again = ([np.array(Image.open(tmp_path / f"{n}/{t:05d}.png")) for t in range(2)] for n in range(2))
    assert first[0].shape == (24, 32, 3)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    others = (
        "--seed 6",
        "--prompt up",
        "--negative up",
        "--fit crop",
        "--text-scale 5",
        "--image-scale 5",
        "--order text_first",
    )
    for number, option in enumerate(others):
        assert run(f"{line} --output {{o}}/other{number} {option}").exit_code == 0
        assert (np.array(Image.open(tmp_path / f"other{number}/00001.png")) != first[1]).any(), option


@pytest.mark.parametrize(
    "given", ["--prompt left", "--image {f}/picture.png", "--prompt left --checkpoint {f}/text.safetensors"]
)
def test_a_sentence_or_a_picture_is_enough(run, tmp_path, given):
    result = run(f"generate {given} --output {{o}}/clip.webp")
    assert result.exit_code == 0, result.output
    assert frames(tmp_path / "clip.webp") == 3


@pytest.mark.parametrize(("given", "words"), [
    ("", "neither --image nor --prompt is given"),
    ("--image {f}/missing.png", "--image is '{f}/missing.png', and there is no such file"),
    ("--image {f}/broken.png", "--image is '{f}/broken.png', which is no readable picture"),
    ("--prompt a --checkpoint {f}/missing.safetensors", "missing.safetensors: there is no such file"),
    ("--prompt a --checkpoint {f}/picture.png", "picture.png: this is no .safetensors file"),
    ("--image {f}/picture.png --checkpoint {f}/text.safetensors", "but text.safetensors has no retention branch"),
    ("--prompt a --width 65", "--width is 65; allowed: multiples of 8. Take 64"),
    ("--prompt a --height 0", "--height is 0; allowed: multiples of 8. Take 8"),
    ("--prompt a --frames 0", "--frames is 0; allowed: 1 or more"),
    ("--prompt a --steps 0", "--steps is 0; allowed: 1 to 1000"),
    ("--prompt a --steps 1001", "--steps is 1001; allowed: 1 to 1000"),
    ("--prompt a --text-scale -1", "--text-scale is -1.0; allowed: 0 or more"),
    ("--prompt a --image-scale nan", "--image-scale is nan; allowed: 0 or more"),
    ("--prompt a --text-scale inf", "--text-scale is inf; allowed: 0 or more"),
    ("--prompt a --seed -1", "--seed is -1; allowed: 0 to 18446744073709551615"),
    ("--prompt a --fps 0", "--fps is 0.0; allowed: 1 to 240"),
    ("--prompt a --fit fill", "--fit is 'fill'; allowed: crop, pad, stretch"),
    ("--prompt a --rescale 2", "--rescale is 2.0; allowed: 0 to 1"),
    ("--prompt a --eta -1", "--eta is -1.0; allowed: 0 to 1"),
    ("--prompt a --model-fps 0", "--model-fps is 0; allowed: 1 to 1000"),
    ("--prompt a --model-fps 8", "--model-fps is 8, but this model is told no frame rate; leave it out"),
    ("--prompt a --end-image {f}/picture.png", "an end_image is given, but this model takes no last picture"),
    ("--prompt a --end-image {f}/missing.png", "--end-image is '{f}/missing.png', and there is no such file"),
    ("--prompt a --checkpoint {f}/photo.safetensors", "no image is given, but this model makes clips of a picture only"),
    ("--image {f}/picture.png --checkpoint {f}/photo.safetensors --frames 8", "num_frames is 8; allowed: 3"),
    ("--prompt a --order both", "--order is 'both'; allowed: text_first, image_first"),
    ("--prompt a --device abacus", "--device is 'abacus', which cannot be used here; allowed: "),
    ("--prompt a --dtype fp8", "--dtype is 'fp8'; allowed: auto, fp32, fp16, bf16"),
    ("--prompt a --device meta", "--device is 'meta', which cannot be used here; allowed: "),
    ("--prompt a --output {o}/clip.avi", "clip.avi'; allowed: a file that ends in .mp4, .webp, .gif"),
    ("--prompt a --output {f}/full", "full', which exists and is not an empty folder"),
    ("--prompt a --output {f}/picture.png", "ends in .mp4"),
    ("--prompt a --output {f}/picture.png/clip.mp4", "picture.png' is a file; name another"),
])  # fmt: skip
def test_input_that_cannot_be_used_is_one_line(run, files, tmp_path, given, words):
    output = "" if "--output" in given else "--output {o}/clip.mp4"
    result = run(f"generate {given} {output}")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert words.format(f=files) in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert not list(tmp_path.iterdir())
    assert [p.name for p in (files / "full").iterdir()] == ["kept"]


@pytest.mark.parametrize(
    "line", ["generate --prompt a", "generate --output c.mp4 --steps many", "generate --colour red", "dream"]
)
def test_lines_that_are_no_command(run, line):
    result = run(line)
    assert result.exit_code == 2
    assert "Error:" in result.stderr and "Traceback" not in result.stderr


def test_help_names_every_command(run):
    assert all(word in run("--help").stdout for word in ("generate", "train"))
    assert "--text-scale" in run("generate --help").stdout


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.PRESETS, "tiny", TINY)
    path = tmp_path / "small.toml"
    path.write_text(
        'name = "small"\npreset = "tiny"\n[[phases]]\nname = "text"\nobjective = "diffusion"\ntrainable = ["unet"]\n'
        "steps = 1\nbatch_size = 2\nlearning_rate = 1e-3\nnum_frames = 1\nsizes = [[16, 16]]\nclips = 2\n"
    )
    return path


def test_training(run, recipe, tmp_path):
    result = run(f"train {recipe}")
    assert result.exit_code == 0, result.output
    path = tmp_path / "runs" / "small" / "0-text.safetensors"
    assert result.stdout.splitlines()[-1] == "runs/small/0-text.safetensors"
    assert path.is_file()
    again = run(f"train {recipe}")
    assert again.exit_code == 1 and "--resume" in again.stderr and again.stderr.count("\n") == 1
    assert run(f"train {recipe} --resume").exit_code == 0


def test_training_without_time_says_how_to_go_on(run, recipe):
    result = run(f"train {recipe} --output {{o}}/out --minutes 0")
    assert result.exit_code == 0
    assert "--resume goes on" in result.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    ("circus", "no recipe 'circus'"),
    ("{o}/small.toml --minutes -1", "--minutes is -1.0; allowed: 0 or more"),
    ("{o}/small.toml --output {o}/small.toml", "which is a file; name a folder"),
    ("{f}/picture.toml", "no recipe"),
    ("{o}/small.toml --start {o}/none.safetensors", "none.safetensors', which is no file; give"),
])  # fmt: skip
def test_training_that_cannot_be(run, recipe, arguments, words):
    result = run(f"train {arguments}")
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.count("\n") == 1


def test_converting_and_beginning_a_branch(run, tmp_path):
    random_pipeline().save(tmp_path / "text.safetensors", parts=("unet", "vae"))
    result = run("convert {o}/text.safetensors {o}/half.safetensors --dtype bf16")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'half.safetensors'}\n"
    assert "half.safetensors has no retention branch" in result.stderr and "no text encoder" in result.stderr
    assert load_checkpoint(tmp_path / "half.safetensors").parts["unet"]["conv_in.weight"].dtype == torch.bfloat16
    result = run("init-retention {o}/half.safetensors {o}/start.safetensors --fusion concat")
    assert result.exit_code == 0 and "no retention branch" not in result.stderr
    assert load_checkpoint(tmp_path / "start.safetensors").lacks() == ("text_encoder",)


def test_converting_dynamicrafter(run, tmp_path, monkeypatch):
    lvdm_files.use_small_models(monkeypatch)
    lvdm_files.write_ckpt(tmp_path / "model.ckpt", "dynamicrafter_512")
    result = run("convert {o}/model.ckpt {o}/out.safetensors --dtype fp16")
    assert result.exit_code == 1 and result.stderr.strip().count("\n") == 0
    assert "dynamicrafter_512_interp (64 x 64, a first and a last picture)" in result.stderr and "--model" in result.stderr
    result = run("convert {o}/model.ckpt {o}/out.safetensors --dtype fp16 --model dynamicrafter_512_interp")
    assert result.exit_code == 0 and not result.stderr.strip(), result.output
    written = load_checkpoint(tmp_path / "out.safetensors")
    assert written.config == lvdm_files.small_config("dynamicrafter_512_interp") and not written.lacks()
    lvdm_files.write_pruned(tmp_path / "dynamicrafter_512_v1.safetensors", "dynamicrafter_512")
    result = run("convert {o}/dynamicrafter_512_v1.safetensors {o}/three.safetensors")
    assert "dynamicrafter_512_v1.safetensors is taken for dynamicrafter_512 by its name" in result.stderr
    assert "three.safetensors has no CLIP vision model: Load CLIP Vision brings it" in result.stderr


@pytest.mark.parametrize(("line", "words"), [
    ("convert {f}/picture.png {o}/out.safetensors", "picture.png: this is no .safetensors file"),
    ("convert {o}/none.safetensors {o}/out.safetensors", "none.safetensors', which does not exist; give a file or"),
    ("convert {f}/picture.png {o}/out.png", "out.png'; give the name of a file that ends in .safetensors"),
    ("convert {f}/picture.png {o}/out.safetensors --dtype fp64", "--dtype is 'fp64'; allowed: fp32, fp16, bf16"),
    ("convert {f}/picture.png {o}/out.safetensors --parts branch", "--parts is 'branch'; allowed: unet, retention, text_"),
    ("convert {f}/picture.png {o}/out.safetensors --model x", "--model is 'x'; allowed: dynamicrafter_256, dynamicrafter_"),
    ("convert {f}/picture.png {o}/out.safetensors --prediction-type x", "--prediction-type is 'x'; allowed: epsilon, v_"),
    ("init-retention {f} {o}/out.safetensors", "no unet/config.json, so it is no diffusers model"),
    ("init-retention {f}/picture.png {o}/out.safetensors --fusion mix", "--fusion is 'mix'; allowed: add, concat"),
])  # fmt: skip
def test_converting_what_cannot_be(run, tmp_path, line, words):
    result = run(line)
    assert result.exit_code == 1
    assert words in result.stderr and result.stderr.count("error: ") == 1
    assert not list(tmp_path.iterdir())


def test_too_little_memory_is_said_in_words(run, monkeypatch):
    def fail(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    monkeypatch.setattr("dreamvideo_core.sampling.pipeline.Pipeline.__call__", fail)
    result = run("generate --prompt a --output {o}/clip.mp4")
    assert result.exit_code == 1
    assert "not enough memory; give a smaller --width" in result.stderr


def test_a_missing_package_is_named():
    code = "import sys; sys.modules['typer'] = None; import dreamvideo_core.cli"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cli.__file__).parents[2])
    assert result.returncode == 1
    assert "error: typer is not installed; run in the pack's folder: pip install '.[cli]'" in result.stderr


def test_the_sampling_of_the_file_is_the_default(run, files, tmp_path):
    pipeline = random_pipeline(replace(TINY, sampling=replace(TINY.sampling, num_frames=2, width=24, height=8)))
    pipeline.save(tmp_path / "other.safetensors")
    assert run("generate --prompt a --checkpoint {o}/other.safetensors --output {o}/clip").exit_code == 0
    assert frames(tmp_path / "clip") == 2
    assert Image.open(tmp_path / "clip" / "00000.png").size == (24, 8)
