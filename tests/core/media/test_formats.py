"""Training on video files: listing, windows, cache, the look before, and the way from clips to a model."""

import csv
import io
import json
import tarfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from clip_files import SIZE, write_clips, write_odd_ones
from PIL import Image
from tiny import TINY, random_pipeline
from typer.testing import CliRunner

from dreamvideo_core.cli import app
from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.decoding import UnusableClip, read_info, read_window
from dreamvideo_core.media.video import save_clip
from dreamvideo_core.models.text_encoder import tokenize
from dreamvideo_core.sampling.pipeline import Pipeline
from dreamvideo_core.training import recipe as recipes
from dreamvideo_core.training.cache import Processes
from dreamvideo_core.training.data.held_out import choose_held_out
from dreamvideo_core.training.data.listing import list_clips, list_digest
from dreamvideo_core.training.data.survey import survey
from dreamvideo_core.training.data.survey_report import _counts
from dreamvideo_core.training.data.videos import VideoSource
from dreamvideo_core.training.latents import cached_clips
from dreamvideo_core.training.objectives import DiffusionObjective
from dreamvideo_core.training.recipe import Phase, Recipe
from dreamvideo_core.training.run import run_recipe
from dreamvideo_core.training.texts import cached_texts
from dreamvideo_core.training.trainer import Trainer
from dreamvideo_core.weights.checkpoint import load_checkpoint

PHASE = Phase(
    "image", "diffusion", steps=3, batch_size=2, learning_rate=1e-2, trainable=("temporal", "retention"), data="clips",
    stride=2, num_frames=3, sizes=((16, 16),), warmup_steps=1, drop_text=0.1, drop_image=0.1, sample_steps=1,
    sample_every=2, log_every=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six good clips and four odd ones."""
    folder = write_clips(tmp_path_factory.mktemp("data") / "clips")
    write_odd_ones(folder)
    return folder


def source(folder, phase: Phase = PHASE, seed: int = 0) -> VideoSource:
    return VideoSource(list_clips(folder), phase, phase.sizes[0], seed)


def blocks_of(frames: torch.Tensor) -> torch.Tensor:
    """A stand-in for the autoencoder."""
    return frames[:, :, :1, ::8, ::8].repeat(1, 1, 4, 1, 1)


def test_a_folder_a_table_and_shards_give_the_same_clips(tmp_path):
    folder = write_clips(tmp_path / "clips", count=3)
    beside = [(c.name, c.caption) for c in list_clips(folder)]
    assert [name for name, _ in beside] == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]
    assert all("moves right" in caption or "right" in caption for _, caption in beside)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *((f"clips/{name}", text) for name, text in beside)])
    lines = [json.dumps({"path": f"clips/{name}", "caption": text}) for name, text in beside]
    (tmp_path / "table.jsonl").write_text("\n".join(lines) + "\n\n")
    (tmp_path / "shards").mkdir()
    for number, (name, text) in enumerate(beside):
        with tarfile.open(tmp_path / "shards" / f"{number:03d}.tar", "w") as tar:
            tar.add(folder / name, f"sample.{number}/{name}")
            data = json.dumps({"caption": text}).encode() if number else text.encode()
            member = tarfile.TarInfo(f"sample.{number}/{name.replace('mp4', 'json' if number else 'txt')}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    for path in ("table.csv", "table.jsonl", "shards"):
        listed = list_clips(tmp_path / path)
        assert [c.caption for c in listed] == [text for _, text in beside]
        for clip, (name, _) in zip(listed, beside, strict=True):
            with clip.open() as file:
                assert file.read() == (folder / name).read_bytes()
    assert len(list_clips(tmp_path / "shards" / "001.tar")) == 1


def test_tables_and_captions_written_on_windows(tmp_path):
    folder = write_clips(tmp_path / "clips", count=2)
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    beside = list_clips(folder)
    assert not any(clip.caption.startswith("\ufeff") for clip in beside)
    rows = [f"clips\\{clip.name},{clip.caption}" for clip in beside]
    (tmp_path / "table.csv").write_text("\r\n".join(["path,caption", *rows]), encoding="utf-8-sig", newline="")
    listed = list_clips(tmp_path / "table.csv")
    assert [(c.path, c.caption) for c in listed] == [(c.path, c.caption) for c in beside]


def test_clips_in_folders_have_one_name_and_one_order_on_every_system(tmp_path):
    for name in ("b/a.mp4", "C/z.mp4", "a-b/c.mp4", "a/d.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    assert [clip.name for clip in list_clips(tmp_path)] == ["C/z.mp4", "a/d.mp4", "a-b/c.mp4", "b/a.mp4"]


def test_a_list_is_known_by_names_sizes_and_captions(tmp_path):
    folder = write_clips(tmp_path / "clips", count=2)
    before = list_digest(list_clips(folder))
    assert list_digest(list_clips(folder)) == before
    assert list_digest(list_clips(folder.rename(tmp_path / "elsewhere"))) == before
    (tmp_path / "elsewhere" / "clip1.txt").write_text("something else")
    assert list_digest(list_clips(tmp_path / "elsewhere")) != before


@pytest.mark.parametrize(("name", "content", "words"), [
    ("none", None, "there is no such file or folder; give a folder of videos"),
    ("notes.pdf", "x", "which is neither a folder nor a table or shard"),
    ("empty.jsonl", "", "in which there is no video"),
    ("t.csv", "file,caption\na.mp4,x\n", r"row 1 has \['caption', 'file'\]; it needs `path`"),
    ("t.csv", "path,caption\na.mp4,x\nb.mp4,y\n", "names 2 files that are not there, 'a.mp4' for one"),
    ("t.jsonl", "{", "line 1 is no JSON"),
    ("t.jsonl", "[1]", "line 1 is '\\[1\\]'; it must be a JSON object"),
    ("t.tar", "no tar", "is no readable .tar file without compression"),
])  # fmt: skip
def test_data_that_cannot_be_read(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        list_clips(tmp_path / name)


def test_a_window_is_the_frames_it_says(tmp_path):
    levels = torch.linspace(-0.9, 0.9, 12)
    save_clip(tmp_path / "clip.mp4", levels.view(-1, 1, 1, 1).expand(-1, 3, 16, 24), fps=12)
    with (tmp_path / "clip.mp4").open("rb") as file:
        info = read_info(file)
        window = read_window(file, start=2, count=4, stride=3)
        with pytest.raises(UnusableClip, match="it ends before frame 14"):
            read_window(file, start=2, count=5, stride=3)
    assert (info.frames, info.fps, info.height, info.width) == (12, 12.0, 16, 24)
    assert window.shape == (4, 3, 16, 24)
    torch.testing.assert_close(window.mean((1, 2, 3)), levels[[2, 5, 8, 11]], atol=0.05, rtol=0)


def test_windows_depend_on_seed_and_number_alone(clips):
    first, again = source(clips), source(clips)
    good = [n for n, f in enumerate(first.files) if f.name.startswith("clip")]
    frames = first.read(good).frames
    assert frames.shape == (6, 3, 3, 16, 16)
    assert torch.equal(torch.cat([again.read([n]).frames for n in reversed(good)]).flip(0), frames)
    others = source(clips, seed=1).read(good).frames
    assert not torch.equal(others, frames)
    cropped = source(clips, replace(PHASE, crop="random")).read(good).frames
    assert not torch.equal(cropped, frames) and torch.equal(cropped.mean((3, 4)) < 2, frames.mean((3, 4)) < 2)


def test_short_and_broken_clips_are_skipped_and_say_why(clips):
    read = source(clips).read(range(20))
    files = list_clips(clips)
    assert {files[n].name: why.partition(":")[0] for n, why in read.skipped.items()} == {
        "broken.mp4": "broken", "short.mp4": "too short",
    }  # fmt: skip
    assert "2 frames, and a window spans 5" in next(why for why in read.skipped.values() if "short" in why)
    assert len(read.numbers) == len(read.frames) == 8


def test_the_cache_holds_what_can_be_used_and_needs_no_files(clips, tmp_path):
    made = cached_clips(tmp_path, source(clips), "autoencoder", blocks_of)
    assert len(made) == 8 and len(made.skipped) == 2 and not set(made.numbers) & set(made.skipped)
    gone = source(clips)
    gone.files = [replace(f, path=tmp_path / "gone") for f in gone.files]
    loaded = cached_clips(tmp_path, gone, "autoencoder", blocks_of)
    assert loaded.numbers == made.numbers and loaded.skipped == made.skipped
    assert torch.equal(loaded.latents[range(8)], made.latents[range(8)])


def test_a_vanished_file_stops_and_is_no_broken_clip(clips, tmp_path):
    gone = source(clips)
    gone.files[3] = replace(gone.files[3], path=tmp_path / "gone.mp4")
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        cached_clips(tmp_path, gone, "autoencoder", blocks_of)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_data_without_one_good_clip(tmp_path):
    (tmp_path / "clips").mkdir()
    write_odd_ones(tmp_path / "clips")
    for name in ("still", "cut"):
        (tmp_path / "clips" / f"{name}.mp4").unlink()
    with pytest.raises(InputError, match=r"no clip can be used: broken.mp4 is broken: .* for all 2"):
        cached_clips(tmp_path, source(tmp_path / "clips"), "autoencoder", blocks_of)


def test_an_epoch_has_every_clip_once_whatever_the_ranks(clips, tmp_path):
    cache = cached_clips(tmp_path, source(clips), "autoencoder", blocks_of)
    objective = DiffusionObjective(random_pipeline(), replace(PHASE, drop_text=0.0), {(16, 16): cache}, seed=0)
    shares = [[objective.batch(step * 2 + rank) for step in range(2)] for rank in range(2)]
    seen = Counter(tuple(row.flatten().tolist()) for share in shares for batch in share for row in batch["images"])
    assert len(seen) == 8 or sum(seen.values()) == 8
    assert (objective.batch(0)["weights"] == 1).all()
    assert objective.samples().sheet.size == (3 * (SIZE // 2 + 2), 4 * 4 * (SIZE // 2 + 2))


def test_windows_are_spread_over_their_clip_and_the_first_is_the_same_alone(tmp_path):
    folder = write_clips(tmp_path / "clips", count=3, frames=21)
    three, one = (source(folder, replace(PHASE, windows=n, stride=1)) for n in (3, 1))  # 19 starts
    assert (len(three), len(one)) == (9, 3)
    starts = [[three.window(3 * file + k).start for k in range(3)] for file in range(3)]
    assert all(a in range(0, 6) and b in range(6, 12) and c in range(12, 19) for a, b, c in starts)
    assert len({tuple(clip) for clip in starts}) > 1
    assert starts == [[three.window(3 * file + k).start for k in range(3)] for file in range(3)]
    assert starts != [[source(folder, three.phase, seed=1).window(3 * file + k).start for k in range(3)] for file in range(3)]
    assert [one.window(file).start for file in range(3)] == [
        int(np.random.default_rng([0, file]).integers(19)) for file in range(3)
    ]
    assert len(three.read(range(20)).numbers) == 9 and three.title(4) == one.title(1)
    assert three.cache_name != one.cache_name


def test_a_clip_with_fewer_starts_than_windows_repeats_some(tmp_path):
    folder = write_clips(tmp_path / "clips", count=1, frames=6)
    wide = source(folder, replace(PHASE, windows=5))  # a window spans 5 frames
    assert [wide.window(k).start for k in range(5)] == [0, 0, 0, 1, 1]


def test_an_epoch_has_every_window_once(clips, tmp_path):
    phase = replace(PHASE, windows=2, batch_size=4, crop="random")
    cache = cached_clips(tmp_path, source(clips, phase), "autoencoder", blocks_of)
    assert len(cache) == 16 and len(cache.skipped) == 4
    objective = DiffusionObjective(random_pipeline(), replace(phase, drop_image=0.0), {(16, 16): cache}, seed=0)
    seen = Counter(tuple(row.flatten().tolist()) for number in range(4) for row in objective.batch(number)["images"].clone())
    assert sum(seen.values()) == 16
    assert [cache.source.file_of(n) for n in cache.numbers] == sorted(2 * [n for n in range(10) if 2 * n not in cache.skipped])


def test_clips_are_held_out_by_the_seed_and_never_more_than_a_tenth():
    files = list(range(3, 60))
    chosen = choose_held_out(files, 4, seed=0)
    assert len(set(chosen)) == 4 and set(chosen) <= set(files) and chosen == choose_held_out(files, 4, seed=0)
    assert chosen != choose_held_out(files, 4, seed=1)
    assert len(choose_held_out(files, 50, 0)) == 5 and len(choose_held_out(files[:10], 4, 0)) == 1
    assert choose_held_out(files[:9], 4, 0) == choose_held_out(files, 0, 0) == []


def test_what_is_held_out_is_sampled_and_never_trained_on(clips, tmp_path):
    phase = replace(PHASE, windows=2, drop_image=0.0, crop="random")
    whole = cached_clips(tmp_path, source(clips, phase), "autoencoder", blocks_of)
    kept = whole.without([1, 4])
    assert len(kept) == 12 and kept.held_out == [2, 8]
    assert not {whole.source.file_of(n) for n in kept.numbers} & {1, 4}
    assert torch.equal(kept.latents[range(12)], whole.latents[[r for r, n in enumerate(whole.numbers) if n in kept.numbers]])
    objective = DiffusionObjective(random_pipeline(), phase, {(16, 16): kept}, seed=0)
    trained = torch.cat([objective.batch(number)["images"] for number in range(6)])
    held_out = whole.source.read([2, 3, 8, 9]).frames[:, 0]
    assert torch.cdist(held_out.flatten(1), trained.flatten(1)).min() > 1
    samples = objective.samples()
    assert samples.sheet.size == (3 * (SIZE // 2 + 2), 2 * 4 * (SIZE // 2 + 2))
    assert samples.figures.keys() == {"fff_ssim", "fff_ssim_ceiling"}


class GivesBack(Pipeline):
    """A pipeline whose clips are their picture, as the autoencoder restores it, over and over."""

    made: tuple[int, ...] = ()

    def __call__(self, texts, images, *, num_frames, height, width, steps):
        self.made += (len(texts),)
        pictures = torch.zeros(len(texts), 3, height, width) if images is None else images
        return self.decode(self.encode(pictures[:, None])).expand(-1, num_frames, -1, -1, -1)


def test_first_frame_fidelity_is_that_of_all_held_out_clips(clips, tmp_path):
    """Six clips are held out and four on the sheet; a model that gives its pictures back has the ceiling's fidelity."""
    whole = cached_clips(tmp_path, source(clips), "autoencoder", blocks_of)
    random = random_pipeline()
    pipeline = GivesBack(random.model, random.text_encoder, random.autoencoder)
    objective = DiffusionObjective(pipeline, PHASE, {(16, 16): whole.without(whole.numbers[:6])}, seed=0)
    figures = objective.samples().figures
    assert pipeline.made == (4, 4, 2, 4)  # from the texts, from both, from the images
    assert figures["fff_ssim"] == pytest.approx(figures["fff_ssim_ceiling"], abs=1e-5)
    assert figures["fff_ssim"] < 0.99


def test_captions_are_encoded_once_and_as_they_would_be(clips, tmp_path, monkeypatch):
    pipeline, phase = random_pipeline(), replace(PHASE, drop_text=0.5)
    captions = source(clips).captions()
    texts = cached_texts(tmp_path, captions, pipeline.text_encoder, "encoder")
    cache = {(16, 16): cached_clips(tmp_path, source(clips), "autoencoder", blocks_of)}
    cached, plain = (DiffusionObjective(pipeline, phase, cache, 0, t) for t in (texts, None))
    batch, expected = cached.batch(1), plain.batch(1)
    assert batch.keys() == {"latents", "images", "weights", "encodings"} and batch["encodings"].dtype == torch.float16
    torch.testing.assert_close(batch["encodings"].float(), pipeline.text_encoder(expected["tokens"]), atol=2e-3, rtol=2e-3)
    torch.manual_seed(0)
    loss = cached(batch)["loss"]
    torch.manual_seed(0)
    torch.testing.assert_close(loss, plain(expected)["loss"], atol=1e-4, rtol=1e-3)
    monkeypatch.setattr(pipeline.text_encoder, "encode", None)
    again = cached_texts(tmp_path, captions, pipeline.text_encoder, "encoder")
    assert torch.equal(again.batch(captions)["encodings"], texts.batch(captions)["encodings"])


def test_of_a_text_encoder_that_is_trained_tokens_are_kept(clips, tmp_path, monkeypatch):
    encoder, captions = random_pipeline().text_encoder, source(clips).captions()
    made = cached_texts(tmp_path, captions, encoder, None).batch(["", captions[0], captions[0]])
    assert made.keys() == {"tokens"} and torch.equal(made["tokens"], tokenize(["", captions[0], captions[0]]))
    monkeypatch.setattr("dreamvideo_core.training.texts.tokenize", None)
    assert torch.equal(cached_texts(tmp_path, captions, encoder, None).batch(captions)["tokens"], tokenize(captions))


def test_other_captions_or_another_encoder_have_a_cache_of_their_own(tmp_path):
    encoder = random_pipeline().text_encoder
    for captions, name in ((["a"], None), (["a", "b"], None), (["a"], "one"), (["a"], "other"), (["a"], "one")):
        assert "a" in cached_texts(tmp_path, captions, encoder, name).rows
    assert len(list(tmp_path.glob("texts-*/*.safetensors"))) == 4 and not list(tmp_path.glob("texts-*/.*"))


def test_a_cache_of_texts_that_was_stopped_is_completed_by_several(tmp_path):
    encoder, captions = random_pipeline().text_encoder, [f"clip {n}" for n in range(200)]
    whole = cached_texts(tmp_path / "whole", captions, encoder, "encoder")
    with pytest.raises(KeyboardInterrupt):
        cached_texts(tmp_path / "parts", captions, encoder, "encoder", Processes(1, 2, wait=interrupted))
    assert len(list((tmp_path / "parts").glob("*/*.safetensors"))) == 2
    parts = cached_texts(tmp_path / "parts", captions, encoder, "encoder", Processes(0, 2))
    assert torch.equal(parts.batch(captions)["encodings"], whole.batch(captions)["encodings"])


def interrupted():
    raise KeyboardInterrupt


def test_epochs_become_steps():
    phase = replace(PHASE, steps=0, epochs=5.0, gradient_accumulation=2)
    assert phase.with_steps(100, 2).steps == 63 and not phase.with_steps(100, 2).epochs
    assert PHASE.with_steps(100, 2) is PHASE


def test_the_look_before_finds_what_is_odd(clips):
    found = {f.name: f for f in survey(source(clips), keep={0})}
    assert [n for n, f in found.items() if f.is_static] == ["still.mp4"]
    assert [n for n, f in found.items() if not f.caption] == ["still.mp4"]
    assert not any(f.has_cut for n, f in found.items() if n.startswith("clip"))
    assert found["short.mp4"].info.frames == 2 and found["broken.mp4"].info is None
    spread = survey(source(clips, replace(PHASE, num_frames=9, stride=1)))
    assert [f.name for f in spread if f.has_cut] == ["cut.mp4"]


def test_the_look_before_counts_clips_windows_and_what_is_held_out(clips):
    looked_at = source(clips, replace(PHASE, windows=3, held_out=4))
    findings = survey(looked_at)
    cells = {cells[0]: cells[1:] for cells in _counts(findings, looked_at)}
    assert len(findings) == 30
    assert (cells["clips"][0], cells["can be used"][0], cells["windows of these"][0]) == ("10", "8", "24")
    assert cells["broken"] == ("1", "broken.mp4") and cells["nothing moves"] == ("2", "cut.mp4, still.mp4")
    assert cells["held out for samples"] == ("0", "")
    assert all(f.start == looked_at.window(n).start for n, f in enumerate(findings) if not f.unusable)


@pytest.fixture
def recipe(monkeypatch, clips) -> Recipe:
    monkeypatch.setitem(recipes.PRESETS, "tiny", TINY)
    return Recipe("tiny", "tiny", (replace(PHASE, data=str(clips)),))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "text.safetensors"
    random_pipeline().save(path, parts=("vae", "text_encoder", "unet"))
    return path


@pytest.fixture
def a_step_at_a_time(monkeypatch):
    """Every run is stopped after one step."""
    fit = Trainer.fit
    return lambda: monkeypatch.setattr(Trainer, "fit", lambda self, minutes: fit(self, 0))


def test_from_videos_to_a_model_stopped_and_gone_on_with(tmp_path, recipe, start, a_step_at_a_time):
    whole = run_recipe(recipe, tmp_path / "whole", start=start)
    assert load_checkpoint(whole).lacks() == ()
    a_step_at_a_time()
    results = [run_recipe(recipe, tmp_path / "parts", start=start, resume=part > 0) for part in range(3)]
    assert results[:2] == [None, None] and results[2].read_bytes() == whole.read_bytes()
    listed = [json.loads(line) for line in (tmp_path / "whole" / "image" / "skipped.jsonl").read_text().splitlines()]
    assert [line["clip"] for line in listed] == ["broken.mp4", "short.mp4"]
    log = [json.loads(line) for line in (tmp_path / "whole" / "image" / "log.jsonl").read_text().splitlines()]
    steps, measured = ([line for line in log if ("loss" in line) == is_step] for is_step in (True, False))
    assert len(steps) == 3 and all(line["clips_per_second"] > 0 and 0 <= line["data_share"] < 1 for line in steps)
    assert [line["step"] for line in measured] == [0, 2]
    assert all(line.keys() == {"step", "fff_ssim", "fff_ssim_ceiling"} for line in measured)
    assert list((tmp_path / "whole" / "image" / "tensorboard").iterdir())
    assert np.array(Image.open(tmp_path / "whole" / "image" / "samples" / "step-0000002.png")).std() > 0


def test_a_run_goes_on_with_the_same_videos_only(tmp_path, recipe, start, clips, a_step_at_a_time):
    a_step_at_a_time()
    run_recipe(recipe, tmp_path / "run", start=start)
    other = replace(recipe, phases=(replace(recipe.phases[0], data=str(write_clips(tmp_path / "other", 2))),))
    with pytest.raises(ValueError, match="image began with other settings: data was"):
        run_recipe(other, tmp_path / "run", start=start, resume=True)
    (tmp_path / "moved").symlink_to(clips)
    moved = replace(recipe, phases=(replace(recipe.phases[0], data=str(tmp_path / "moved")),))
    run_recipe(moved, tmp_path / "run", start=start, resume=True)
    log = [json.loads(line) for line in (tmp_path / "run" / "image" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "loss" in line] == [1, 2]


def test_the_papers_phase_needs_a_model_to_begin_with(tmp_path, recipe):
    with pytest.raises(InputError, match="begins with a text-to-video model; give one with --start"):
        run_recipe(recipe, tmp_path)


def test_a_part_that_the_start_lacks_is_not_taken_at_random(tmp_path, recipe):
    start = tmp_path / "unet.safetensors"
    random_pipeline().save(start, parts=("unet",))
    with pytest.raises(InputError, match=r"has no autoencoder and no text encoder, and phase image trains none"):
        run_recipe(recipe, tmp_path / "run", start=start)
    taught = replace(recipe, phases=(replace(recipe.phases[0], trainable=("retention", "text_encoder")),))
    with pytest.raises(InputError, match=r"has no autoencoder, and phase image trains none"):
        run_recipe(taught, tmp_path / "run", start=start)


@pytest.fixture
def written(tmp_path, monkeypatch, clips):
    monkeypatch.setitem(recipes.PRESETS, "tiny", TINY)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\npreset = "tiny"\n[[phases]]\nname = "text"\nobjective = "diffusion"\ntrainable = ["unet"]\n'
        "steps = 9\nbatch_size = 2\nlearning_rate = 1e-3\nnum_frames = 3\nsizes = [[16, 16]]\nwarmup_steps = 1\n"
    )
    return path


def test_a_run_holds_clips_out_and_says_so(tmp_path, monkeypatch, start, capsys):
    monkeypatch.setitem(recipes.PRESETS, "tiny", TINY)
    write_odd_ones(write_clips(tmp_path / "clips", count=10))
    phase = replace(PHASE, data=str(tmp_path / "clips"), steps=0, epochs=1.0, held_out=4, windows=2)
    run_recipe(Recipe("tiny", "tiny", (phase,)), tmp_path / "run", start=start)
    said = " ".join(capsys.readouterr().out.split())
    assert "24 windows of 12 clips, 2 cannot be used" in said and "1 held out for samples" in said
    assert "11/11" in said  # the bar has room for its count in 80 columns
    assert "step 11 of 11" in said and "of the time waiting for data" in said  # 11 clips, 2 windows, 2 a step
    assert len(list((tmp_path / "run").glob("texts-*/*.safetensors"))) == 1
    assert len((tmp_path / "run" / "image" / "skipped.jsonl").read_text().splitlines()) == 2


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_the_command_checks_data(written, clips, tmp_path):
    result = run(written, "--data", clips, "--check-data", "--set", "text.stride=2")
    assert result.exit_code == 0, result.output
    words = ("can be used", "too short", "broken.mp4", "nothing moves", "still.mp4", "40 x 32", "Watermarks")
    assert all(word in result.stdout for word in words)
    lines = [json.loads(line) for line in (tmp_path / "runs" / "mine" / "check.jsonl").read_text().splitlines()]
    assert len(lines) == 10 and {"clip", "caption", "frames", "motion", "cut"} <= set(lines[-1])
    assert Image.open(tmp_path / "runs" / "mine" / "check.png").width > 3 * 3 * 16
    refused = run(written, "--check-data")
    assert refused.exit_code == 1 and "give --data" in refused.stderr


def test_the_command_trains_with_changed_settings(written, clips, tmp_path):
    result = run(written, "--data", clips, "--set", "text.epochs=0.5", "--set", "seed=3", "--set", 'name="other"')
    assert result.exit_code == 0, result.output
    assert "2 steps" in result.stdout and "frozen: retention branch" in result.stdout
    assert result.stdout.splitlines()[-1] == "runs/other/0-text.safetensors"
    settings = json.loads((tmp_path / "runs" / "other" / "text" / "settings.json").read_text())
    assert (settings["seed"], settings["epochs"]) == (3, 0.5)


@pytest.mark.parametrize(("change", "words"), [
    ("seed", "--set is 'seed'; write key=value"),
    ("seed=red", "write key=value or phase.key=value"),
    ("image.steps=3", "there is no such phase; allowed: text"),
    ("text.speed=3", "--set is 'text.speed=3', but a phase has no such setting; allowed: batch"),
    ("steps=3", "--set is 'steps=3', but a recipe has no such setting; write PHASE.steps=..."),
    ("speed=3", "--set is 'speed=3', but a recipe has no such setting; allowed: mixed_precision, name"),
    ("text.gradient_checkpointing=1", "gradient_checkpointing is 1; it must be true or false"),
    ("text.windows=2", "windows belongs to videos, and data is 'sprites'"),
    ("text.stride=4", "stride belongs to videos, and data is 'sprites'"),
    ('text.data="clips"', "no such file or folder"),
    ('text.optimizer="sgd"', "optimizer is 'sgd'; allowed: adamw, adafactor"),
    ("text.ema_decay=1.0", "ema_decay is 1.0; allowed: from 0 to below 1"),
])  # fmt: skip
def test_changes_that_cannot_be(written, change, words):
    result = run(written, "--set", change)
    assert result.exit_code == 1 and words in result.stderr


@pytest.mark.parametrize(("settings", "words"), [
    ({"windows": 0}, "windows is 0; allowed: 1 or more"),
    ({"readers": -1}, "readers is -1; allowed: 0 or more"),
    ({"held_out": -1}, "held_out is -1; allowed: 0 or more"),
    ({"sprite_weight": 4.0}, "sprite_weight belongs to sprites, and data is 'clips'"),
    ({"epochs": 2.0}, "steps is 3 and epochs 2.0; give one of them"),
    ({"epochs": 2.0, "steps": 0, "sizes": ((16, 16), (32, 32))}, "epochs with 2 sizes cannot be counted"),
    ({"objective": "autoencoder", "trainable": ()}, "the autoencoder objective has sprites only"),
    ({"crop": "left"}, "crop is 'left'; allowed: centre, random"),
])  # fmt: skip
def test_settings_that_videos_cannot_have(settings, words):
    with pytest.raises(ValueError, match=words):
        replace(PHASE, **settings)
