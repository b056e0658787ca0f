"""Work that evaluations have in common, done once: the primary encoder per text and step, conv_s per image and run,
and, where a sampler asks for it, the branch in every so many steps.

ComfyUI may put the evaluations of a step into one call of the model or into several. What they share lives in small
caches that travel in `transformer_options`; wrappers that the loader puts on the model renew them. Because they are
on the model, every sampler node profits, not only ours.

torch.compile is kept away from all of this, and works on the passes alone: tags are new in every run, and what is kept
must not lie in memory that compiled passes write over.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...dreamvideo_core.model import Encoding, Residuals

STEP_KEY = "dreamvideo_step"
RUN_KEY = "dreamvideo_run"
EVERY_KEY = "dreamvideo_retention_every"

# For functions that read tags: they are left as they are, the passes that they call are compiled. What handles kept tensors
# has torch.compiler.disable itself, for all that it calls.
uncompiled = partial(torch.compiler.disable, recursive=False)
Made = TypeVar("Made", Encoding, Residuals)


# The caches are no dictionaries: ComfyUI copies the dictionaries and lists in `transformer_options`, which would end the
# sharing, and hands on every other object as it is. What they hold is tensors, so they are never compared: no `eq`.
@dataclass(eq=False)
class StepCache:
    """What one step keeps: the encoding of each text, one clip each."""

    encodings: dict[Hashable, Encoding] = field(default_factory=dict)


@dataclass(eq=False)
class RunCache:
    """What a run keeps: conv_s of each image (C, h, w), and what the branch made in the steps where it ran."""

    maps: dict[Hashable, Tensor] = field(default_factory=dict)
    timesteps: list[float] = field(default_factory=list)  # of the steps so far, in their order
    # By context window first: windows hold other frames under the same tags.
    residuals: dict[tuple[int, ...], dict[Hashable, Residuals]] = field(default_factory=dict)

    def step(self, timestep: float) -> int:
        """The number of the step that has this timestep, from 0; a timestep not seen yet begins a new one."""
        if timestep not in self.timesteps:
            self.timesteps.append(timestep)
        return self.timesteps.index(timestep)


def install(patcher: ModelPatcher) -> None:
    """Give a model fresh caches for every run and every step."""
    renew_in_every_run(patcher, RUN_KEY, RunCache)
    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, STEP_KEY, _fresh_step)


def renew_in_every_run(patcher: ModelPatcher, key: str, make: Callable[[], object]) -> None:
    """Put a new `make()` under `key` of the `transformer_options` in every run of a model; ComfyUI drops it after the run."""

    def in_a_run(executor, *args, **kwargs):
        options = executor.class_obj.model_options
        options["transformer_options"] = {**options.get("transformer_options", {}), key: make()}
        return executor(*args, **kwargs)

    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, in_a_run)


def _fresh_step(executor, model, conds, x_in, timestep, model_options):
    # One call is one step of one context window: rows of equal tags hold the same latents.
    transformer_options = {**model_options.get("transformer_options", {}), STEP_KEY: StepCache()}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": transformer_options})


@uncompiled
def shared_encoding(tags: Sequence[Hashable], options: dict, encode: Callable[[list[int]], Encoding]) -> Encoding:
    """The encoding of every row, running `encode` only for the first row of each tag that was not seen this step."""
    kept = (options.get(STEP_KEY) or StepCache()).encodings
    fresh = {tag: row for row, tag in reversed(list(enumerate(tags))) if tag not in kept}
    if fresh:
        encoding = encode(list(fresh.values()))
        for place, tag in enumerate(fresh):
            kept[tag] = _clips(encoding, torch.tensor([place], device=encoding.mid.device))
    return _joined([kept[tag] for tag in tags])


@uncompiled
def shared_maps(tags: Sequence[Hashable | None], options: dict, images: Tensor, conv_s: Callable[[Tensor], Tensor]) -> Tensor:
    """conv_s of every row's image, once per tag and run; a row tagged None is never kept."""
    kept = (options.get(RUN_KEY) or RunCache()).maps
    missing = [row for row, tag in enumerate(tags) if tag is None or tag not in kept]
    made = dict(zip(missing, conv_s(images[missing]), strict=True)) if missing else {}
    for row, tag in enumerate(tags):
        if tag is not None and row in made:
            kept.setdefault(tag, made[row].clone())
    return torch.stack([made[row] if row in made else kept[tag] for row, tag in enumerate(tags)])


@uncompiled
def shared_residuals(
    tags: Sequence[Hashable | None], options: dict, timestep: float, retain: Callable[[list[int]], Residuals], num_frames: int
) -> Residuals:
    """The branch's residuals of every row. With `EVERY_KEY` in the options it runs in every so many steps alone.

    In between, a row's residuals are those of the step where they were made last; a row tagged None is never kept.
    """
    cache: RunCache | None = options.get(RUN_KEY)
    every: int = options.get(EVERY_KEY, 1)
    if cache is None or every == 1:
        return retain(list(range(len(tags))))
    window = getattr(options.get("context_window"), "index_list", ())
    kept = cache.residuals.setdefault(tuple(window), {})
    due = cache.step(timestep) % every == 0
    rows = [row for row, tag in enumerate(tags) if due or tag is None or tag not in kept]
    made = {}
    if rows:
        residuals = retain(rows)
        one = torch.arange(len(rows), device=residuals.mid.device)
        made = {row: _clips(residuals, one[place : place + 1], num_frames) for place, row in enumerate(rows)}
        kept.update({tags[row]: made[row] for row in rows if tags[row] is not None})
    return _joined([made[row] if row in made else kept[tag] for row, tag in enumerate(tags)])


@torch.compiler.disable
def _clips(made: Made, *which: Any) -> Made:
    return made.select(*which)


@torch.compiler.disable
def _joined(parts: Sequence[Made]) -> Made:
    return type(parts[0]).join(parts)
