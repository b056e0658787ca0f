"""What a step and a run keep, so that ComfyUI's calls of the model share work: encodings, image maps, the branch's residuals.

ComfyUI may put the evaluations of a step into one call of the model or into several, and other nodes may call it with what
they like. So everything is found by the values that it was made from. The caches travel in `transformer_options`; wrappers
that the loader puts on the model renew them. Because they are on the model, every sampler node profits, not only ours.

torch.compile is kept away from all of this, and works on the passes alone: what is kept must not lie in memory that compiled
passes write over.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...dreamvideo_core.common.batches import Batch, chunk, map_tensors
from ...dreamvideo_core.models.unet import Encoding, Residuals
from ...dreamvideo_core.sampling.reuse import EveryNth, Kept, Row
from .conditions import ROWS_KEY, agree

STEP_KEY = "dreamvideo_step"
RUN_KEY = "dreamvideo_run"
EVERY_KEY = "dreamvideo_retention_every"

# Excludes a function from torch.compile, but not the passes that it calls. Functions that touch kept tensors have plain
# torch.compiler.disable, which covers what they call too.
uncompiled = partial(torch.compiler.disable, recursive=False)


class HostKept(Kept):
    """As `Kept`, in memory of its own: compiled passes write over theirs."""

    get = uncompiled(Kept.get)
    _find = torch.compiler.disable(Kept._find)
    _keep = torch.compiler.disable(Kept._keep)
    _missing = torch.compiler.disable(Kept._missing)
    _fill = torch.compiler.disable(Kept._fill)
    _joined = torch.compiler.disable(Kept._joined)

    @staticmethod
    def split(made: Batch, count: int) -> list[Batch]:
        return [map_tensors(torch.clone, part) for part in chunk(made, count)]


class _KeptItems(Kept):
    """What is made of rows is a list with an item for each."""

    split = staticmethod(lambda items, count: items)
    join = staticmethod(list)


class _Calls:
    """The calls of one step, told apart by their latents: in another step the same call has the same number."""

    def __init__(self):
        self.counters, self.numbers = _KeptItems(), _KeptItems()

    @torch.compiler.disable
    def number(self, rows: Sequence[Row], in_this_step: Sequence[Row]) -> list[int]:
        """For each of `rows` the number of its call; `in_this_step` are the same rows with timesteps and latents."""
        counters = self.counters.get(rows, lambda numbers: [itertools.count() for _ in numbers])
        return self.numbers.get(in_this_step, lambda numbers: [next(counters[number]) for number in numbers])


# The caches are no dictionaries: ComfyUI copies the dictionaries and lists in `transformer_options`, which would end the
# sharing, and hands on every other object as it is. What they hold is tensors, so they are never compared: no `eq`.
@dataclass(eq=False)
class StepCache:
    """What one step keeps: encodings, of one clip each, and no more than ComfyUI has `rows` to evaluate."""

    rows: int = 0
    encodings: Kept[Encoding] = field(default_factory=HostKept)


@dataclass(eq=False)
class RunCache:
    """What a run keeps: conv_s or tokens of images, what the branch made in its steps, and what was said of the run."""

    images: Kept[Tensor] = field(default_factory=HostKept)
    idle: list[str] = field(default_factory=list)  # what other nodes have put on the model in vain
    sigmas: list[float] = field(default_factory=list)  # of the steps so far, in their order
    residuals: EveryNth[Kept[Residuals]] | None = None
    calls: EveryNth[_Calls] = field(default_factory=lambda: EveryNth(1, _Calls))

    def step(self, sigma: float) -> int:
        """The number of the step that has this sigma, from 0; one not seen yet begins a new one."""
        if sigma not in self.sigmas:
            self.sigmas.append(sigma)
        return self.sigmas.index(sigma)


def install(patcher: ModelPatcher) -> None:
    """Give a model fresh caches for every run and every step, and every run conditions that agree on the clips' length."""
    renew_in_every_run(patcher, RUN_KEY, RunCache)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, RUN_KEY, _agreed)
    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, STEP_KEY, _fresh_step)


def renew_in_every_run(patcher: ModelPatcher, key: str, make: Callable[[], object]) -> None:
    """Put a new `make()` under `key` of the `transformer_options` in every run of a model; ComfyUI drops it after the run."""

    def in_a_run(executor, *args, **kwargs):
        options = executor.class_obj.model_options
        options["transformer_options"] = {**options.get("transformer_options", {}), key: make()}
        return executor(*args, **kwargs)

    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, in_a_run)


def _agreed(executor, *args, **kwargs):
    agree(executor.class_obj.conds)
    return executor(*args, **kwargs)


def _fresh_step(executor, model, conds, x_in, timestep, model_options):
    rows = sum(len(condition["model_conds"][ROWS_KEY].cond) for conditions in conds for condition in conditions or ())
    transformer_options = {**model_options.get("transformer_options", {}), STEP_KEY: StepCache(rows)}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": transformer_options})


@uncompiled
def shared_encoding(rows: Sequence[Row], options: dict[str, Any], encode: Callable[[list[int]], Encoding]) -> Encoding:
    """The encoding of every row, running `encode` only for rows unlike all that this step has encoded."""
    step: StepCache = options.get(STEP_KEY) or StepCache()
    return step.encodings.get(rows, encode, most=step.rows)


@uncompiled
def shared_images(rows: Sequence[Row], options: dict[str, Any], make: Callable[[list[int]], Tensor]) -> Tensor:
    """What the model makes of every row's image, conv_s or image tokens, once per image and run."""
    images: Kept[Tensor] = (options.get(RUN_KEY) or RunCache()).images
    step: StepCache = options.get(STEP_KEY) or StepCache()
    return images.get(rows, make, most=2 * step.rows)  # each row of a step may need its own image and the empty one


@uncompiled
def shared_residuals(
    rows: Sequence[Row], in_this_step: Sequence[Row], options: dict[str, Any], retain: Callable[[list[int]], Residuals]
) -> Residuals:
    """The branch's residuals of every row. With `EVERY_KEY` in the options it runs in every so many steps alone.

    In between, a row's residuals are those of the step where they were made last. `rows` have what stays the same from step
    to step, `in_this_step` also what does not: by it a step's calls are told apart.
    """
    run: RunCache | None = options.get(RUN_KEY)
    every: int = options.get(EVERY_KEY, 1)
    if run is None or every == 1:
        return retain(list(range(len(rows))))
    step = run.step(float(options["sigmas"].max()))
    if run.residuals is None:
        run.residuals = EveryNth(every, HostKept)
    calls = run.calls.at(step).number(rows, in_this_step)
    asked = [Row((row.key, call), row.tensors) for row, call in zip(rows, calls, strict=True)]
    return run.residuals.at(step).get(asked, retain)
