"""A recipe from first phase to last: each phase in a folder of its own, each starting from the file before it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress

from ..checkpoint import PARTS
from ..config import PRESETS, ModelConfig
from ..model import is_untrained
from ..pipeline import Pipeline
from ..sources import open_model
from ..sprites import phrases
from .latents import LatentClips, cached_clips
from .objectives import AutoencoderObjective, DiffusionObjective, Objective
from .recipe import ONLY_SEEN, Phase, Recipe
from .state import check_settings
from .trainer import Trainer

console = Console()


def run_recipe(
    recipe: Recipe, folder: Path, *, start: Path | None = None, resume: bool = False, minutes: float | None = None
) -> Path | None:
    """Train every phase that is not done yet; the path of the last phase's file, or None when `minutes` ran out.

    The first phase begins with the weights of `start`, whatever the sizes of its parts, or with fresh ones. Without
    `resume`, a folder with work in it raises FileExistsError; with it, a phase that began with other settings raises
    ValueError.
    """
    if not resume and any(folder.glob("*/state-*.safetensors")):
        raise FileExistsError(f"{folder} holds a run already: add --resume to go on with it, or give another folder")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    result = start
    for number, phase in enumerate(recipe.phases):
        before, result = result, folder / f"{number}-{phase.name}.safetensors"
        if accelerator.is_main_process:
            check_settings(folder / phase.name, _settings(recipe, phase, start))
        if result.is_file():
            continue
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return None
        if not _run_phase(recipe, phase, folder, start, before, result, accelerator, left):
            return None
    return result


def _settings(recipe: Recipe, phase: Phase, start: Path | None) -> dict:
    """What decides the weights that a phase ends with."""
    settings = {k: v for k, v in asdict(phase).items() if k not in ONLY_SEEN}
    start_hash = None if start is None else hashlib.blake2b(start.read_bytes(), digest_size=6).hexdigest()
    return {
        "preset": recipe.preset,
        "mixed_precision": recipe.mixed_precision,
        "seed": recipe.seed,
        "start": start_hash,
        **settings,
    }


def _config(recipe: Recipe, start: Path | None) -> ModelConfig:
    """The preset's; parts that the start file has keep their own."""
    preset = PRESETS[recipe.preset]
    if start is None:
        return preset
    given = open_model(start).config
    return replace(given, **{part: getattr(preset, part) for part in PARTS if getattr(given, part) is None})


def _run_phase(
    recipe: Recipe,
    phase: Phase,
    folder: Path,
    start: Path | None,
    before: Path | None,
    result: Path,
    accelerator: Accelerator,
    minutes: float | None,
) -> bool:
    torch.manual_seed(recipe.seed)
    pipeline = Pipeline.build(_config(recipe, start))
    pipeline.text_encoder.initialise(phrases())
    if before is not None:
        pipeline.load_parts(open_model(before).parts)
    pipeline.to(accelerator.device)
    work = folder / phase.name
    work.mkdir(parents=True, exist_ok=True)
    objective = _objective(recipe, phase, folder, pipeline, accelerator)
    trainer = Trainer(objective.train(), phase, work, accelerator, recipe.seed)
    resumed = trainer.resume()
    if accelerator.is_main_process:
        console.print(_announcement(phase, objective, trainer.step if resumed else None))
    finished = trainer.fit(minutes)
    if finished and accelerator.is_main_process:
        trainer.use_average()
        parts = ("vae",) if phase.objective == "autoencoder" else ("vae", "text_encoder", "unet")
        pipeline.save(result, parts=(*parts, "retention") if "retention" in phase.trainable else parts)
    accelerator.wait_for_everyone()
    return finished


def _objective(recipe: Recipe, phase: Phase, folder: Path, pipeline: Pipeline, accelerator: Accelerator) -> Objective:
    if phase.objective == "autoencoder":
        return AutoencoderObjective(pipeline.autoencoder, phase, recipe.seed)
    if "retention" in phase.trainable and is_untrained(pipeline.model.retention.state_dict()):
        pipeline.model.retention.start_from(pipeline.model.unet)
    clips = {size: _clips(recipe, phase, size, folder, pipeline, accelerator) for size in dict.fromkeys(phase.sizes)}
    return DiffusionObjective(pipeline, phase, clips, recipe.seed)


def _clips(
    recipe: Recipe,
    phase: Phase,
    size: tuple[int, int],
    folder: Path,
    pipeline: Pipeline,
    accelerator: Accelerator,
) -> LatentClips:
    with accelerator.main_process_first(), Progress(disable=not accelerator.is_main_process) as bar:
        task = bar.add_task(f"{phase.clips_at(size)} clips of {size[1]} x {size[0]} to latents")

        def encode(frames: torch.Tensor) -> torch.Tensor:
            with accelerator.autocast():
                return pipeline.encode(frames.to(accelerator.device)).float().cpu()

        return cached_clips(
            folder, phase, size, recipe.seed, _fingerprint(pipeline.autoencoder), encode,
            lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip


def _fingerprint(module: torch.nn.Module) -> str:
    """A short name for a module's weights."""
    digest = hashlib.blake2b(digest_size=6)
    for tensor in module.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def _announcement(phase: Phase, objective: Objective, step: int | None) -> str:
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    total = sum(p.numel() for p in objective.parameters())
    what = ", ".join(phase.trainable) or phase.objective
    start = "" if step is None else f", resumed at step {step}"
    return f"phase {phase.name}: {trained:,} of {total:,} parameters trained ({what}), {phase.steps} steps{start}"
