"""Running a recipe: each phase in a folder of its own, starting from the file of the phase before."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from accelerate.utils.memory import clear_device_cache

from ..common.checks import InputError
from ..common.files import digest
from ..models.config import PRESETS, ModelConfig
from ..models.retention import is_untrained
from ..models.unet import is_temporal
from ..sampling.cuda_graphs import available as graphs_available
from ..sampling.pipeline import Pipeline
from ..sprites import phrases
from ..weights.checkpoint import PARTS
from ..weights.sources import open_model
from .data.listing import ClipFile, list_clips, list_digest
from .objectives import AutoencoderObjective, DiffusionObjective, Objective
from .prepare import console, prepared_clips, prepared_hand_overs, prepared_texts
from .recipe import NO_EFFECT_ON_WEIGHTS, SPRITES, Phase, Recipe
from .state import check_settings
from .trainer import Trainer

# Processes wait so long for each other: the main one generates samples and writes checkpoints alone.
_TIMEOUT = timedelta(hours=6)


def run_recipe(
    recipe: Recipe, folder: Path, *, start: Path | None = None, resume: bool = False, minutes: float | None = None
) -> Path | None:
    """Train every phase that is not done yet. Returns the last phase's file, or None if `minutes` ran out.

    The first phase starts from the weights of `start`, whose parts may be of any size, or from random ones. Raises
    `InputError` before any work: for a folder that holds a run, unless `resume` is true; for a phase that began with other
    settings; and for what cannot be trained or read.
    """
    _check_start(recipe, start)
    videos = {phase.data: list_clips(phase.data) for phase in recipe.phases if phase.data != SPRITES}
    if not resume and any(folder.glob("*/state-*.safetensors")):
        raise InputError(f"{folder} holds a run already: add --resume to go on with it, or give another folder")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    device = PartialState(parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_TIMEOUT).device
    recipe = replace(recipe, mixed_precision=_precision(recipe.mixed_precision, device))
    accelerator = Accelerator(mixed_precision=recipe.mixed_precision)
    start_hash = None if start is None else digest([start], size=6)
    result = start
    for number, phase in enumerate(recipe.phases):
        before, result = result, folder / f"{number}-{phase.name}.safetensors"
        files = videos.get(phase.data, ())
        if accelerator.is_main_process:
            check_settings(folder / phase.name, _decisive_settings(recipe, phase, start_hash, files), _defaults())
        if result.is_file():
            continue
        left = None if deadline is None else (deadline - time.monotonic()) / 60
        if left is not None and left <= 0:
            return None
        finished = _run_phase(recipe, phase, files, folder, start, before, result, accelerator, left)
        _free_memory(accelerator)
        if not finished:
            return None
    return result


def _free_memory(accelerator: Accelerator) -> None:
    """Release a phase's weights, moments and graphs: the next phase needs the device's memory."""
    accelerator.free_memory()
    clear_device_cache(garbage_collection=True)


def _precision(asked: str, device: torch.device) -> str:
    """The meaning of "auto": bf16 if torch has fast kernels for it, else "no". CPUs before AVX-512 take ten times as long."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return "bf16" if fast else "no"


def _check_start(recipe: Recipe, start: Path | None) -> None:
    first = recipe.phases[0]
    if first.objective != "diffusion":
        return
    if start is None and "unet" not in first.trainable:
        raise InputError(
            f"phase {first.name} trains {', '.join(first.trainable)} and keeps the U-Net's spatial layers as they are, so it "
            "begins with a text-to-video model; give one with --start (`dreamvideo convert` makes the file)"
        )
    if start is not None:
        _check_frozen_parts(first, start)


def _check_frozen_parts(first: Phase, start: Path) -> None:
    """A part that the file lacks starts at random, so the first phase must train it."""
    config = open_model(start).config
    lacks = [what for what, part in (("autoencoder", config.vae), ("text encoder", config.text_encoder)) if part is None]
    if "text_encoder" in first.trainable and "text encoder" in lacks:
        lacks.remove("text encoder")
    if lacks:
        raise InputError(
            f"--start is {str(start)!r}, which has no {' and no '.join(lacks)}, and phase {first.name} trains none: it would "
            "learn from random values. Give a model with all its parts, such as a public one in diffusers' layout "
            "(`dreamvideo convert FOLDER model.safetensors`)"
        )


def _decisive_settings(recipe: Recipe, phase: Phase, start_hash: str | None, files: Sequence[ClipFile]) -> dict:
    """The settings that decide a phase's weights."""
    settings = {k: v for k, v in asdict(phase).items() if k not in NO_EFFECT_ON_WEIGHTS}
    return {
        "preset": recipe.preset,
        "mixed_precision": recipe.mixed_precision,
        "seed": recipe.seed,
        "start": start_hash,
        **settings,
        "data": f"{len(files)} clips ({list_digest(files)})" if files else phase.data,  # the files may be moved
    }


def _defaults() -> dict:
    return {f.name: f.default for f in fields(Phase) if f.default is not MISSING}


def _config(recipe: Recipe, start: Path | None) -> ModelConfig:
    """The configuration of the preset, but for the parts that the start file has."""
    preset = PRESETS[recipe.preset]
    if start is None:
        return preset
    given = open_model(start).config
    return replace(given, **{part: getattr(preset, part) for part in PARTS if getattr(given, part) is None})


def _run_phase(
    recipe: Recipe,
    phase: Phase,
    files: Sequence[ClipFile],
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
    if phase.objective == "autoencoder":
        objective: Objective = AutoencoderObjective(pipeline.autoencoder, phase, recipe.seed)
    else:
        objective = _diffusion(recipe, phase, files, folder, pipeline, accelerator)
        phase = objective.phase  # with steps instead of epochs
    trainer = Trainer(objective.train(), phase, work, accelerator, recipe.seed)
    resumed = trainer.resume()
    if accelerator.is_main_process:
        console.print(_announcement(phase, objective, accelerator.mixed_precision, trainer.step if resumed else None))
    finished = trainer.fit(minutes)
    if accelerator.is_main_process:
        console.print(f"phase {phase.name}: step {trainer.step} of {phase.steps}, {trainer.pace}")
    if finished and accelerator.is_main_process:
        trainer.use_average()
        parts = ("vae",) if phase.objective == "autoencoder" else ("vae", "text_encoder", "unet")
        pipeline.save(result, parts=(*parts, "retention") if "retention" in phase.trainable else parts)
    accelerator.wait_for_everyone()
    return finished


def _diffusion(
    recipe: Recipe, phase: Phase, files: Sequence[ClipFile], folder: Path, pipeline: Pipeline, accelerator: Accelerator
) -> DiffusionObjective:
    """The objective, after filling its caches."""
    if "retention" in phase.trainable and is_untrained(pipeline.model.retention.state_dict()):
        if phase.hand_over:
            raise InputError(
                f"phase {phase.name}: hand_over is {phase.hand_over}, but this model's branch is untrained and hands over "
                "nothing of the picture; begin with a trained one (--start), or train it in a phase before"
            )
        # Even if the file has a branch: an untrained one of version 0.1.0 has a conv_s that cannot tell images apart.
        pipeline.model.retention.start_from(pipeline.model.unet)
    clips = prepared_clips(recipe, phase, files, folder, pipeline, accelerator)
    first = clips[phase.sizes[0]]
    texts = prepared_texts(phase, first.source, folder, pipeline, accelerator)
    hand_overs = prepared_hand_overs(clips, folder, pipeline, accelerator) if phase.hand_over else None
    phase = phase.with_steps(len(first), accelerator.num_processes)
    graphed = phase.cuda_graphs and graphs_available(accelerator.device) and accelerator.num_processes == 1
    return DiffusionObjective(pipeline, phase, clips, recipe.seed, texts, hand_overs, graphed=graphed)


def _announcement(phase: Phase, objective: Objective, precision: str, step: int | None) -> str:
    """The numbers of trained and frozen parameters, and the precision."""
    counts = {True: Counter(), False: Counter()}  # by whether they are trained, then by the name of their part
    for name, parameter in objective.named_parameters():
        counts[parameter.requires_grad][_part_name(name)] += parameter.numel()
    trained, frozen = (", ".join(f"{part} {count:,}" for part, count in counts[kind].items()) for kind in (True, False))
    total = counts[True].total() + counts[False].total()
    start = "" if step is None else f", resumed at step {step}"
    return (
        f"phase {phase.name}: {counts[True].total():,} of {total:,} parameters trained, {phase.steps} steps{start}\n"
        f"  trained: {trained}\n  frozen: {frozen or 'nothing'}\n"
        f"  mixed precision: {precision}"
    )


def _part_name(parameter: str) -> str:
    """The part of the model that a parameter of an objective belongs to, for the announcement."""
    if parameter.startswith("model.unet."):
        return "temporal layers" if is_temporal(parameter) else "spatial layers"
    return {"model": "retention branch", "text_encoder": "text encoder"}.get(parameter.partition(".")[0], "autoencoder")
