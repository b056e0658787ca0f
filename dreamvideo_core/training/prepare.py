"""A phase's clips and captions, made ready: encoded where the caches are not whole, and some clips held out."""

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
from .cache import Makers, Rows
from .data.held_out import choose_held_out
from .data.listing import ClipFile
from .data.source import Source
from .data.sprites import SpriteSource
from .data.videos import VideoSource
from .hand_overs import cached_hand_overs
from .latents import LatentClips, cached_clips
from .recipe import Phase, Recipe
from .texts import CachedTexts, cached_texts

console = Console()


def _source(phase: Phase, size: tuple[int, int], seed: int, files: Sequence[ClipFile], device: torch.device) -> Source:
    """The phase's clips at one size (height, width); `files` are those of its data, none for sprites."""
    return VideoSource(files, phase, size, seed) if files else SpriteSource(phase, size, seed, device)


def prepared_clips(
    recipe: Recipe,
    phase: Phase,
    files: Sequence[ClipFile],
    folder: Path,
    pipeline: Pipeline,
    accelerator: Accelerator,
) -> dict[tuple[int, int], LatentClips]:
    """The cache of every size, made where it is not whole, without the clips that are held out."""
    clips = {}
    for size in dict.fromkeys(phase.sizes):
        source = _source(phase, size, recipe.seed, files, accelerator.device)
        clips[size] = _cached(source, f"windows of {size[1]} x {size[0]} to latents", folder, pipeline, accelerator)
    first = clips[phase.sizes[0]]
    held_out = choose_held_out(_files_of(first.source, first.numbers), phase.held_out, recipe.seed)
    if files and accelerator.is_main_process:
        _say_what_is_used(phase, first, held_out, folder / phase.name / "skipped.jsonl")
    return {size: cached.without(held_out) for size, cached in clips.items()} if held_out else clips


def _files_of(source: Source, numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(source.file_of(number) for number in numbers))


def _say_what_is_used(phase: Phase, clips: LatentClips, held_out: Sequence[int], path: Path) -> None:
    """How many files and windows; those that cannot be used are listed in `path`, a line each."""
    source, used = clips.source, _files_of(clips.source, clips.numbers)
    said = [f"{len(clips)} windows of {len(used)} clips"]
    if clips.skipped:
        why = {source.title(number): reason for number, reason in sorted(clips.skipped.items())}
        write_text(path, json_lines({"clip": clip, "why": reason} for clip, reason in why.items()))
        said.append(f"{len(why)} cannot be used: {path}")
    if phase.held_out:
        few = "too few to hold one out: samples show clips that are trained on"
        said.append(f"{len(held_out)} held out for samples" if held_out else few)
    console.print(f"phase {phase.name}: {', '.join(said)}")


def prepared_texts(
    phase: Phase, source: Source, folder: Path, pipeline: Pipeline, accelerator: Accelerator
) -> CachedTexts | None:
    """The cache of all captions: encodings, or tokens where the text encoder is trained; None without captions."""
    captions = source.captions()
    if captions is None:
        return None
    name = None if "text_encoder" in phase.trainable else _weights_digest(pipeline.text_encoder)
    with _making(f"{len(captions)} captions to {'tokens' if name is None else 'encodings'}", accelerator) as makers:
        return cached_texts(folder, captions, pipeline.text_encoder, name, makers)


def prepared_hand_overs(
    clips: Mapping[tuple[int, int], LatentClips], folder: Path, pipeline: Pipeline, accelerator: Accelerator
) -> dict[tuple[int, int], Rows]:
    """For every size the pictures that the pipeline, as it is now, hands from clip to clip."""
    model, made = _weights_digest(pipeline.model, pipeline.text_encoder, pipeline.autoencoder), {}
    for (height, width), cached in clips.items():
        with (
            _making(f"{len(cached)} pictures of {width} x {height} handed over", accelerator) as makers,
            accelerator.autocast(),
        ):
            made[height, width] = cached_hand_overs(folder, cached.source, pipeline, model, makers)
    return made


def _cached(source: Source, what: str, folder: Path, pipeline: Pipeline, accelerator: Accelerator) -> LatentClips:
    def encode(frames: torch.Tensor) -> torch.Tensor:
        with accelerator.autocast():
            return pipeline.encode(frames.to(accelerator.device)).float().cpu()

    with _making(f"{len(source)} {what}", accelerator) as makers:
        return cached_clips(folder, source, _weights_digest(pipeline.autoencoder), encode, makers)


@contextmanager
def _making(what: str, accelerator: Accelerator) -> Iterator[Makers]:
    """Every process makes its share of a cache; the first one shows a bar, and then how long it took."""
    main, started = accelerator.is_main_process, time.monotonic()
    with Progress(disable=not main, transient=True) as bar:
        task = bar.add_task(what)
        yield Makers(
            accelerator.process_index,
            accelerator.num_processes,
            wait=accelerator.wait_for_everyone,
            on_block=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if main:
        console.print(f"{what}: {time.monotonic() - started:.1f} s")


def _weights_digest(*modules: torch.nn.Module) -> str:
    """A short name for modules' weights."""
    digest = hashlib.blake2b(digest_size=6)
    for tensor in (tensor for module in modules for tensor in module.state_dict().values()):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
