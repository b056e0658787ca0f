"""Chains of clips: the paper's two-stage inference (Fig. 7), for any number of stages.

A stage's image is the last decoded frame of the stage before. A retention branch sees its pixels, so no encoding loses
quality on the way. The frame is encoded only for the mean of its latents, which the initial noise keeps a trace of. A U-Net
that takes a picture's latents sees the frame encoded again, with what the VAE loses of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.checks import MAX_SEED, InputError, check_choice, check_text, shown
from ..media.colour import match_colours
from .pipeline import Pipeline

MAX_STAGES = 64
SEAMS = ("merge", "keep")
_DERIVED = "-"  # in `seeds`: the stage keeps its derived seed


@dataclass(frozen=True)
class Stage:
    """One clip of a chain; `number` counts from 1."""

    number: int
    sentence: str
    seed: int


def plan_stages(prompts: str, seed: int, seeds: str = "") -> list[Stage]:
    """One stage per line of `prompts`; blank lines and lines that begin with "#" are left out.

    Stage k has the seed `seed` + k - 1. `seeds` may name others, one per stage, with "-" for a stage that keeps its own.
    Raises `InputError` for no stage, too many stages or seeds, an invalid seed, or text that is no Unicode.
    """
    check_text("prompts", prompts)
    lines = [line.strip() for line in prompts.splitlines()]
    sentences = [line for line in lines if line and not line.startswith("#")]
    if not sentences:
        raise InputError('prompts has no sentence; write one a line, such as "the red circle moves right"')
    if len(sentences) > MAX_STAGES:
        raise InputError(
            f"prompts has {len(sentences)} sentences; allowed: up to {MAX_STAGES}. Make the rest in a second chain, from the "
            "last frame of this one as its image"
        )
    named = re.split(r"[\s,]+", seeds.strip(" \t\n,")) if seeds.strip(" \t\n,") else []
    if len(named) > len(sentences):
        raise InputError(f"seeds names {len(named)} seeds for {len(sentences)} sentences; name one a sentence at most")
    named += [_DERIVED] * (len(sentences) - len(named))
    return [
        Stage(number, sentence, (seed + number - 1) % (MAX_SEED + 1) if text == _DERIVED else _parse_seed(text))
        for number, (sentence, text) in enumerate(zip(sentences, named, strict=True), 1)
    ]


def check_can_chain(takes_image: bool, stages: int) -> None:
    """Raise `InputError` for more than one stage with a model that takes no picture."""
    if stages > 1 and not takes_image:
        raise InputError(
            f"there are {stages} sentences, but this model has no retention branch: it cannot go on from a frame. Give one "
            "sentence, or a model with a branch"
        )


def _parse_seed(text: str) -> int:
    # At most 20 digits: Python refuses to convert thousands.
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > MAX_SEED:
        raise InputError(
            f"seeds holds {shown(text)}; allowed: whole numbers from 0 to {MAX_SEED}, or {_DERIVED} for a stage's own"
        )
    return int(text)


def join_stages(clips: Sequence[Tensor], seam: str) -> Tensor:
    """The clips (T, ...) of N stages as one clip.

    "merge" keeps the frame that two stages share once, from the earlier stage: 1 + N (T - 1) frames. "keep" has all N T
    frames, as in the paper. Raises `InputError` for frames of different sizes.
    """
    check_choice("seam", seam, SEAMS)
    sizes = [tuple(clip.shape[1:]) for clip in clips]
    if len(set(sizes)) > 1:
        raise InputError(f"the stages have frames of {', '.join(map(str, sizes))}; give all one size")
    return torch.cat([clip[1:] if number and seam == "merge" else clip for number, clip in enumerate(clips)])


@dataclass(frozen=True)
class Chain:
    """`frames` (F, 3, H, W) of all stages joined, and `hand_overs` (N, 3, H, W), the last frame of each; in [-1, 1]."""

    frames: Tensor
    hand_overs: Tensor


def run_chain(
    pipeline: Pipeline,
    stages: Sequence[Stage],
    image: Tensor | None = None,
    *,
    seam: str = "merge",
    anchor: bool = False,
    on_stage: Callable[[Stage], None] = lambda stage: None,
    **options,
) -> Chain:
    """Generate every stage from the last frame of the one before; the first from `image` (1, 3, H, W), or from text alone.

    `anchor` matches every stage's colours to those of its image (`match_colours`). `options` are those of
    `Pipeline.__call__`; an `end_image` is where every stage ends. `on_stage` is told each stage before it begins.
    """
    check_can_chain(pipeline.config.takes_image, len(stages))
    clips: list[Tensor] = []
    for stage in stages:
        on_stage(stage)
        clip = pipeline(stage.sentence, image, seed=stage.seed, **options)[0]
        clips.append(match_colours(clip, image) if anchor and image is not None else clip)
        image = clips[-1][-1:]
    return Chain(join_stages(clips, seam), torch.stack([clip[-1] for clip in clips]))
