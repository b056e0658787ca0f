"""Preparing a phase's clips and captions: filling the caches, and holding some clips out."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import Progress

from ..common.files import json_lines, write_text
from ..sampling.pipeline import Pipeline
from .cache import CachedRows, Processes
from .data.held_out import choose_held_out
from .data.listing import ClipFile
from .data.source import ClipSource
from .data.sprites import SpriteSource
from .data.videos import VideoSource
from .hand_overs import cached_hand_overs
from .latents import LatentClips, cached_clips
from .recipe import Phase, Recipe
from .texts import CachedTexts, cached_texts

console = Console()


def _source(phase: Phase, size: tuple[int, int], seed: int, files: Sequence[ClipFile], device: torch.device) -> ClipSource:
    """The phase's clips at one size (height, width); `files` are its videos, none for sprites."""
    return VideoSource(files, phase, size, seed) if files else SpriteSource(phase, size, seed, device)


def prepared_clips(
    recipe: Recipe,
    phase: Phase,
    files: Sequence[ClipFile],
    folder: Path,
    pipeline: Pipeline,
    accelerator: Accelerator,
) -> dict[tuple[int, int], LatentClips]:
    """The cached clips of every size, after encoding what the caches lack, without the held-out ones."""
    clips = {}
    for size in dict.fromkeys(phase.sizes):
        source = _source(phase, size, recipe.seed, files, accelerator.device)
        clips[size] = _cached(source, f"windows of {size[1]} x {size[0]} to latents", folder, pipeline, accelerator)
    first = clips[phase.sizes[0]]
    held_out = choose_held_out(_files_of(first.source, first.numbers), phase.held_out, recipe.seed)
    if files and accelerator.is_main_process:
        _report_use(phase, first, held_out, folder / phase.name / "skipped.jsonl")
    return {size: cached.without(held_out) for size, cached in clips.items()} if held_out else clips


def _files_of(source: ClipSource, numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(source.file_of(number) for number in numbers))


def _report_use(phase: Phase, clips: LatentClips, held_out: Sequence[int], path: Path) -> None:
    """Print how many files and windows are used; write the clips that cannot be used to `path`, one per line."""
    source, used = clips.source, _files_of(clips.source, clips.numbers)
    report = [f"{len(clips)} windows of {len(used)} clips"]
    if clips.skipped:
        why = {source.title(number): reason for number, reason in sorted(clips.skipped.items())}
        write_text(path, json_lines({"clip": clip, "why": reason} for clip, reason in why.items()))
        report.append(f"{len(why)} cannot be used: {path}")
    if phase.held_out:
        few = "too few to hold one out: samples show clips that are trained on"
        report.append(f"{len(held_out)} held out for samples" if held_out else few)
    console.print(f"phase {phase.name}: {', '.join(report)}")


def prepared_texts(
    phase: Phase, source: ClipSource, folder: Path, pipeline: Pipeline, accelerator: Accelerator
) -> CachedTexts | None:
    """The cache of all captions: encodings, or tokens if the text encoder is trained. None for a source without captions."""
    captions = source.captions()
    if captions is None:
        return None
    name = None if "text_encoder" in phase.trainable else _weights_digest(pipeline.text_encoder)
    with _filling(f"{len(captions)} captions to {'tokens' if name is None else 'encodings'}", accelerator) as processes:
        return cached_texts(folder, captions, pipeline.text_encoder, name, processes)


def prepared_hand_overs(
    clips: Mapping[tuple[int, int], LatentClips], folder: Path, pipeline: Pipeline, accelerator: Accelerator
) -> dict[tuple[int, int], CachedRows]:
    """By size, the pictures that the pipeline, as it is now, hands over from stage to stage."""
    model, made = _weights_digest(pipeline.model, pipeline.text_encoder, pipeline.autoencoder), {}
    for (height, width), cached in clips.items():
        with (
            _filling(f"{len(cached)} pictures of {width} x {height} handed over", accelerator) as processes,
            accelerator.autocast(),
        ):
            made[height, width] = cached_hand_overs(folder, cached.source, pipeline, model, processes)
    return made


def _cached(source: ClipSource, what: str, folder: Path, pipeline: Pipeline, accelerator: Accelerator) -> LatentClips:
    def encode(frames: torch.Tensor) -> torch.Tensor:
        with accelerator.autocast():
            return pipeline.encode(frames.to(accelerator.device)).float().cpu()

    with _filling(f"{len(source)} {what}", accelerator) as processes:
        return cached_clips(folder, source, _weights_digest(pipeline.autoencoder), encode, processes)


@contextmanager
def _filling(what: str, accelerator: Accelerator) -> Iterator[Processes]:
    """The processes that fill a cache; the main one shows a progress bar, and at the end the time taken."""
    main, started = accelerator.is_main_process, time.monotonic()
    with Progress(disable=not main, transient=True) as bar:
        task = bar.add_task(what)
        yield Processes(
            accelerator.process_index,
            accelerator.num_processes,
            wait=accelerator.wait_for_everyone,
            on_file=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if main:
        console.print(f"{what}: {time.monotonic() - started:.1f} s")


def _weights_digest(*modules: torch.nn.Module) -> str:
    """A hash of the modules' weights, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=6)
    for tensor in (tensor for module in modules for tensor in module.state_dict().values()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
