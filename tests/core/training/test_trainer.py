"""Training: exactly resumed, only what it should train, and the paper's drop rates."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from schedules import DYNAMICRAFTER, I2VGEN
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import TINY, random_pipeline

from dreamvideo_core.common.checks import InputError
from dreamvideo_core.media.images import from_uint8, to_uint8
from dreamvideo_core.models.retention import is_untrained
from dreamvideo_core.models.text_encoder import tokenize
from dreamvideo_core.sprites import Clip, Sprite, sample_clip, sample_scene
from dreamvideo_core.sprites.scene import seeded
from dreamvideo_core.training import recipe as recipes
from dreamvideo_core.training.data.sprites import SpriteSource, sprite_weights
from dreamvideo_core.training.latents import LatentClips, cached_clips
from dreamvideo_core.training.objectives import DiffusionObjective, Objective, Samples
from dreamvideo_core.training.recipe import Phase, Recipe
from dreamvideo_core.training.run import _precision, run_recipe
from dreamvideo_core.training.trainer import Trainer, cosine_rate
from dreamvideo_core.weights.checkpoint import load_checkpoint

SMALL = {"batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 1, "num_frames": 2, "clips": 8, "sample_steps": 1}
SMALL |= {"sizes": ((16, 16),), "sample_every": 1000, "log_every": 1}
TEXT = Phase("text", "diffusion", steps=3, trainable=("unet", "text_encoder"), drop_text=0.1, **SMALL)
RETENTION = Phase("image", "diffusion", steps=5, trainable=("temporal", "retention"), drop_text=0.1, drop_image=0.1, **SMALL)


def clips(count: int = 8, frames: int = 2, size: int = 2) -> LatentClips:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(count, frames, 4, size, size, generator=generator).half()
    images = torch.randint(0, 200, (count, 3, 8 * size, 8 * size), generator=generator).byte()
    return LatentClips(latents, images, SpriteSource(replace(RETENTION, num_frames=frames), (8 * size,) * 2, 0), range(count))


def trainer(folder, phase: Phase = RETENTION) -> Trainer:
    folder.mkdir(exist_ok=True)
    objective = DiffusionObjective(random_pipeline(), phase, {phase.sizes[0]: clips()}, seed=0)
    return Trainer(objective.train(), phase, folder, Accelerator(cpu=True), seed=0)


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.objective.named_parameters()}


@pytest.mark.parametrize("phase", [TEXT, RETENTION], ids=lambda phase: phase.name)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, phase):
    unbroken = trainer(tmp_path / "unbroken", phase)
    assert unbroken.fit()
    finished, parts = False, 0
    while not finished:
        part = trainer(tmp_path / "parts", phase)
        assert part.resume() == (parts > 0)
        assert part.step == parts
        finished, parts = part.fit(minutes=0), parts + 1
    assert parts == phase.steps
    again = weights(part)
    assert all(torch.equal(w, again[name]) for name, w in weights(unbroken).items())
    assert all(torch.equal(w, part.average[name]) for name, w in unbroken.average.items())
    part.use_average()
    assert all(torch.equal(p, part.average[name]) for name, p in part.parameters.items())
    assert len(list((tmp_path / "parts").glob("state-*"))) == 2


@pytest.mark.parametrize("phase", [TEXT, replace(RETENTION, sprite_weight=4.0)], ids=lambda p: p.name)
def test_readers_change_no_bit(tmp_path, phase):
    alone, helped = (trainer(tmp_path / str(n), replace(phase, readers=n, gradient_accumulation=2)) for n in (0, 3))
    assert alone.fit() and helped.fit()
    with_readers = weights(helped)
    assert all(torch.equal(w, with_readers[name]) for name, w in weights(alone).items())
    assert alone.pace.steps == helped.pace.steps == phase.steps and helped.pace.clips == 4 * phase.steps


def test_the_papers_phase_leaves_every_spatial_weight_of_the_unet(tmp_path):
    run = trainer(tmp_path)
    before = weights(run)
    assert run.fit()
    temporal = {f"model.unet.{name}" for name, _ in run.objective.model.temporal_parameters()}
    assert temporal
    for name, weight in weights(run).items():
        trained = name in temporal or name.startswith("model.retention.")
        assert torch.equal(weight, before[name]) != trained, name


@pytest.mark.parametrize("schedule", [replace(DYNAMICRAFTER, base_scale=0.3), I2VGEN], ids=["dynamicrafter", "i2vgen"])
def test_noise_alone_can_be_learned_from(schedule):
    phase = replace(RETENTION, timestep_power=1e6)  # every timestep is the noisiest
    objective = DiffusionObjective(random_pipeline(replace(TINY, schedule=schedule)), phase, {(16, 16): clips()}, seed=0)
    seen, predict = [], objective._predict
    objective._predict = lambda noisy, timesteps, *rest: seen.extend(timesteps.tolist()) or predict(noisy, timesteps, *rest)
    objective(objective.batch(0))["loss"].backward()
    assert seen == [999, 999]
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_the_text_phase_does_not_touch_the_branch(tmp_path):
    run = trainer(tmp_path, TEXT)
    before = weights(run)
    run.fit()
    changed = {name for name, weight in weights(run).items() if not torch.equal(weight, before[name])}
    assert {name.split(".")[0] for name in changed} == {"model", "text_encoder"}
    assert not any(name.startswith("model.retention.") for name in changed)


def test_text_and_image_are_dropped_independently_in_a_tenth_of_samples():
    phase = Phase("drops", "diffusion", 1, 500, 1e-3, ("retention",), drop_text=0.1, drop_image=0.1, clips=500)
    objective = DiffusionObjective(random_pipeline(), phase, {phase.sizes[0]: clips(500, frames=1, size=1)}, seed=0)
    empty = tokenize([""])[0]
    batches = [objective.batch(number) for number in range(8)]
    no_text = torch.cat([(b["tokens"] == empty).all(1) for b in batches]).float()
    no_image = torch.cat([(b["images"] == 1).flatten(1).all(1) for b in batches]).float()
    assert len(no_text) == 4000
    assert no_text.mean() == pytest.approx(0.1, abs=0.02)
    assert no_image.mean() == pytest.approx(0.1, abs=0.02)
    assert (no_text * no_image).mean() == pytest.approx(0.01, abs=0.006)


def test_errors_count_more_where_the_acting_sprite_is_at_any_time():
    sprite = Sprite("square", "red", 0.19, 0.3, 0.5)
    clip = Clip(replace(sample_scene(seeded("test", 0, 0)), sprites=(sprite,)), 0, "right")
    weights = sprite_weights([clip], torch.zeros(1, 8, 4, 16, 16), 4.0)
    assert weights.shape == (1, 1, 1, 16, 16)
    row = weights[0, 0, 0, 8]
    assert row[5] == row[8] == 4 and row[0] == row[15] == 1
    assert torch.equal(sprite_weights([clip], torch.zeros(1, 8, 4, 16, 16), 1.0), torch.ones(1, 1, 1, 16, 16))


def test_sprites_are_drawn_on_the_device_that_is_asked_for():
    phase = Phase("drawn", "diffusion", 1, 8, 1e-3, ("retention",))
    drawn = SpriteSource(phase, (16, 24), 0, "meta").read(range(8)).frames  # of all kinds of shapes and grounds
    assert drawn.device.type == "meta" and drawn.shape == (8, 8, 3, 16, 24)


def test_without_drops_nothing_is_dropped():
    phase = Phase("drops", "diffusion", 1, 8, 1e-3, ("retention",))
    batch = DiffusionObjective(random_pipeline(), phase, {phase.sizes[0]: clips()}, seed=0).batch(0)
    assert not (batch["images"] == 1).flatten(1).all(1).any()
    assert not (batch["tokens"] == tokenize([""])[0]).all(1).any()


def test_a_batch_is_the_same_whenever_it_is_asked_for_and_an_epoch_has_every_clip():
    objective = DiffusionObjective(random_pipeline(), RETENTION, {(16, 16): clips()}, seed=0)
    first, second = objective.batch(3), objective.batch(3)
    assert all(torch.equal(first[key], second[key]) for key in first)
    epoch = torch.cat([objective.batch(number)["latents"] for number in range(4, 8)])
    assert len({tuple(latents.flatten().tolist()) for latents in epoch}) == 8


def test_batches_take_the_sizes_in_turn_with_as_many_pixels_each():
    settings = {**SMALL, "batch_size": 4, "sizes": ((16, 16), (16, 16), (32, 32))}
    phase = Phase("sizes", "diffusion", steps=1, trainable=("unet",), **settings)
    objective = DiffusionObjective(random_pipeline(), phase, {(16, 16): clips(16), (32, 32): clips(size=4)}, seed=0)
    batches = [objective.batch(number) for number in range(6)]
    assert [tuple(b["latents"].shape[::4]) for b in batches] == [(4, 2), (4, 2), (1, 4)] * 2
    assert [b["images"].shape[-1] for b in batches] == [16, 16, 32] * 2
    small = torch.cat([batch["latents"] for number, batch in enumerate(batches) if number % 3 < 2])
    assert len({tuple(latents.flatten().tolist()) for latents in small}) == 16  # one epoch through both of its turns


def test_the_text_of_a_batch_belongs_to_its_clip():
    phase = Phase("pairs", "diffusion", 1, 8, 1e-3, ("retention",))
    cache = clips()
    objective = DiffusionObjective(random_pipeline(), phase, {phase.sizes[0]: cache}, seed=0)
    batch = objective.batch(0)
    for latents, image, tokens in zip(batch["latents"], batch["images"], batch["tokens"], strict=True):
        index = next(i for i in range(8) if torch.equal(cache.latents[i].float(), latents))
        assert torch.equal(from_uint8(cache.images[index]), image)
        clip = cache.source.clip(index)
        colour = tokenize([clip.scene.sprites[clip.actor].colour])[0, 1]
        assert colour in tokens


class Falling(Objective):
    """A parameter that falls to zero, until its loss is no number."""

    def __init__(self, breaks_at: int = -1, measures: bool = False):
        super().__init__()
        self.value, self.breaks_at, self.measures = torch.nn.Parameter(torch.ones(3)), breaks_at, measures

    def batch(self, number):
        return {"scale": torch.tensor(float("nan") if number == self.breaks_at else 1.0)}

    def forward(self, batch):
        return {"loss": (self.value * batch["scale"]).square().sum()}

    def samples(self):
        return Samples(Image.new("RGB", (4, 4)), {"fidelity": 0.5} if self.measures else {})


def falling(folder, objective: Objective | None = None, **settings) -> Trainer:
    settings = {**SMALL, "steps": 40, "learning_rate": 0.1, **settings}
    phase = Phase("falling", "autoencoder", **settings)
    return Trainer(objective or Falling(), phase, folder, Accelerator(cpu=True), seed=0)


def test_the_loss_falls_and_is_logged_and_looked_at(tmp_path):
    assert falling(tmp_path, sample_every=20).fit()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]
    assert {"seconds", "learning_rate", "grad_norm"} <= set(lines[0])
    sheets = [p.name for p in sorted((tmp_path / "samples").iterdir())]
    assert sheets == ["step-0000000.png", "step-0000020.png", "step-0000040.png"]
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in read.Scalars("loss")] == list(range(1, 41))


def test_what_samples_measure_is_logged_from_before_the_first_step_on(tmp_path):
    for minutes in (0, None):  # stopped after a step, then gone on with
        run = falling(tmp_path, Falling(measures=True), sample_every=20)
        run.resume()
        run.fit(minutes)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    measured = [line for line in lines if "fidelity" in line]
    assert measured == [{"step": step, "fidelity": 0.5} for step in (0, 20, 40)] and len(lines) == 43
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in read.Scalars("fidelity")] == [0, 20, 40]


def test_a_run_without_a_terminal_says_at_every_checkpoint_how_far_it_is(tmp_path, capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):  # which make rich take anything for a terminal
        monkeypatch.delenv(name, raising=False)
    assert falling(tmp_path, checkpoint_minutes=1e-9).fit()
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("phase ") and "clips/s" in line]
    assert [line.split(",")[0] for line in said] == [f"phase falling: step {step} of 40" for step in range(1, 41)]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    run = falling(tmp_path, Falling(breaks_at=3))
    with pytest.raises(InputError, match=r"loss is nan at step 4; .* Lower learning_rate"):
        run.fit()
    assert not list(tmp_path.glob("state-*"))


def test_the_rate_warms_up_and_falls_to_its_last_value():
    phase = Phase("rate", "autoencoder", 100, 1, 1.0, warmup_steps=10, final_learning_rate=0.05)
    rates = [cosine_rate(step, phase) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[10] == pytest.approx(1.0)
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.05)


def test_the_cache_is_made_once_and_completed(tmp_path):
    calls = []

    def encode(frames):
        calls.append(len(frames))
        return frames[:, :, :1, ::8, ::8].repeat(1, 1, 4, 1, 1)

    def cached(phase: Phase = RETENTION):
        clips = cached_clips(tmp_path, SpriteSource(phase, (16, 16), 0), "autoencoder", encode)
        return clips, clips.latents[range(len(clips))], clips.images[range(len(clips))]

    _, latents, images = cached()
    assert latents.shape == (8, 2, 4, 2, 2) and images.shape == (8, 3, 16, 16)
    calls.clear()
    assert torch.equal(cached()[1], latents) and not calls
    next(tmp_path.rglob("*.safetensors")).unlink()
    assert torch.equal(cached()[1], latents) and calls
    cut, _, cut_images = cached(replace(RETENTION, margin=0.05))
    assert not torch.equal(cut_images, images)
    assert cut.source.clip(0) == sample_clip(seeded("train", 0, 0), 0.05)


def test_images_as_bytes():
    image = torch.tensor([-1.0, 0.0, 1.0])
    assert to_uint8(image).tolist() == [0, 128, 255]
    torch.testing.assert_close(from_uint8(to_uint8(image)), image, atol=0.005, rtol=0)


@pytest.fixture(scope="module")
def recipe() -> Iterator[Recipe]:
    settings = {**SMALL, "sizes": ((32, 32),), "learning_rate": 1e-4}
    autoencoder = Phase("autoencoder", "autoencoder", steps=1, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(recipes.PRESETS, "tiny", TINY)
        yield Recipe("tiny", "tiny", (autoencoder, TEXT, RETENTION))


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory) -> Path:
    """The folder of a whole run of `recipe`. Tests that go on in it do so in a copy."""
    folder = tmp_path_factory.mktemp("finished")
    assert run_recipe(recipe, folder) == folder / "2-image.safetensors"
    return folder


def test_a_recipe_from_first_to_last_phase(tmp_path, recipe, finished):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "2-image.safetensors"
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert files == ["0-autoencoder.safetensors", "1-text.safetensors", "2-image.safetensors"]
    assert [load_checkpoint(tmp_path / name).lacks() for name in files] == [
        ("unet", "retention", "text_encoder"), ("retention",), (),
    ]  # fmt: skip
    text, image = (load_checkpoint(tmp_path / name).parts for name in files[1:])
    spatial = [k for k in text["unet"] if not set(k.split(".")) & {"transformer_in", "temp_convs", "temp_attentions"}]
    assert all(torch.equal(text["unet"][key], image["unet"][key]) for key in spatial)
    assert not is_untrained(load_checkpoint(path).parts["retention"])
    with pytest.raises(InputError, match="--resume"):
        run_recipe(recipe, tmp_path)
    before = path.read_bytes()
    assert run_recipe(recipe, tmp_path, resume=True) == path
    assert path.read_bytes() == before


def test_the_first_phase_begins_with_the_start_files_weights(tmp_path, recipe, finished):
    start = finished / "2-image.safetensors"
    onward = replace(recipe, phases=(replace(recipe.phases[-1], name="onward", steps=1, learning_rate=1e-12),))
    end = run_recipe(onward, tmp_path / "second", start=start)
    before, after = (load_checkpoint(path).parts for path in (start, end))
    assert all(torch.equal(before[part][name], weight) for part in after for name, weight in after[part].items())


def test_a_start_file_of_other_sizes_keeps_them(tmp_path, recipe, finished, monkeypatch):
    start = finished / "2-image.safetensors"
    stem = replace(TINY.retention, image_channels=tuple(2 * n for n in TINY.retention.image_channels))
    monkeypatch.setitem(recipes.PRESETS, "tiny", replace(TINY, retention=stem))
    onward = replace(recipe, phases=(replace(recipe.phases[-1], name="onward", steps=1),))
    end = run_recipe(onward, tmp_path / "second", start=start)
    assert load_checkpoint(end).config.retention == TINY.retention


def test_a_run_goes_on_only_with_what_it_began_with(tmp_path, recipe, finished):
    shutil.copytree(finished, tmp_path / "first")
    start = tmp_path / "first" / "2-image.safetensors"
    edited = replace(recipe, phases=(*recipe.phases[:-1], replace(recipe.phases[-1], learning_rate=0.5, log_every=7)))
    with pytest.raises(ValueError, match=r"image began with other settings: learning_rate was 0.01 and is 0.5\. Undo"):
        run_recipe(edited, tmp_path / "first", resume=True)
    with pytest.raises(ValueError, match="autoencoder began with other settings: start was None and is '"):
        run_recipe(recipe, tmp_path / "first", start=start, resume=True)
    longer = replace(recipe, phases=(*recipe.phases, replace(recipe.phases[-1], name="onward")))
    assert run_recipe(longer, tmp_path / "first", resume=True) == tmp_path / "first" / "3-onward.safetensors"


def test_a_recipe_without_time_does_nothing(tmp_path, recipe):
    assert run_recipe(recipe, tmp_path, minutes=0) is None
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(("device", "capability", "supported", "precision"), [
    ("cpu", "AVX512", False, "bf16"), ("cpu", "AVX2", True, "no"), ("cuda", "AVX2", True, "bf16"),
    ("cuda", "AVX512", False, "no"), ("mps", "AVX512", True, "no"),
])  # fmt: skip
def test_bfloat16_by_itself_only_where_it_is_fast(monkeypatch, device, capability, supported, precision):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert _precision("auto", torch.device(device)) == precision
    assert _precision("fp16", torch.device(device)) == "fp16"
