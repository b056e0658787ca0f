"""Work that evaluations have in common, done once: the primary encoder per text and step, conv_s per image and run,
and, where a sampler asks for it, the branch in every so many steps.

ComfyUI may put the evaluations of a step into one call of the model or into several. What they share lives in small
caches that travel in `transformer_options`; wrappers that the loader puts on the model renew them. Because they are
on the model, every sampler node profits, not only ours.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...dreamvideo_core.model import Encoding, Residuals

STEP_KEY = "dreamvideo_step"
RUN_KEY = "dreamvideo_run"
EVERY_KEY = "dreamvideo_retention_every"


class Cache:
    """Not a dictionary: ComfyUI copies the dictionaries in `transformer_options`, which would end the sharing."""

    def __init__(self):
        self.entries: dict[Hashable, object] = {}


def install(patcher: ModelPatcher) -> None:
    """Give a model fresh caches for every run and every step."""
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, RUN_KEY, _fresh_run)
    patcher.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, STEP_KEY, _fresh_step)


def _fresh_run(executor, *args, **kwargs):
    options = executor.class_obj.model_options
    options["transformer_options"] = {**options.get("transformer_options", {}), RUN_KEY: Cache()}
    return executor(*args, **kwargs)


def _fresh_step(executor, model, conds, x_in, timestep, model_options):
    # One call is one step of one context window: rows of equal tags hold the same latents.
    transformer_options = {**model_options.get("transformer_options", {}), STEP_KEY: Cache()}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": transformer_options})


def shared_encoding(tags: Sequence[Hashable], options: dict, encode: Callable[[list[int]], Encoding]) -> Encoding:
    """The encoding of every row, running `encode` only for the first row of each tag that was not seen this step."""
    cache = options.get(STEP_KEY) or Cache()
    fresh = {tag: row for row, tag in reversed(list(enumerate(tags))) if tag not in cache.entries}
    if fresh:
        encoding = encode(list(fresh.values()))
        for place, tag in enumerate(fresh):
            cache.entries[tag] = encoding.select(torch.tensor([place], device=encoding.mid.device))
    return Encoding.join([cache.entries[tag] for tag in tags])


def shared_maps(tags: Sequence[Hashable | None], options: dict, images: Tensor, conv_s: Callable[[Tensor], Tensor]) -> Tensor:
    """conv_s of every row's image, once per tag and run; a row tagged None is never kept."""
    cache = options.get(RUN_KEY) or Cache()
    missing = [row for row, tag in enumerate(tags) if tag is None or tag not in cache.entries]
    made = dict(zip(missing, conv_s(images[missing]), strict=True)) if missing else {}
    for row, tag in enumerate(tags):
        if tag is not None and row in made:
            cache.entries.setdefault(tag, made[row])
    return torch.stack([made[row] if row in made else cache.entries[tag] for row, tag in enumerate(tags)])


def shared_residuals(
    tags: Sequence[Hashable | None], options: dict, timestep: float, retain: Callable[[list[int]], Residuals], num_frames: int
) -> Residuals:
    """The branch's residuals of every row. With `EVERY_KEY` in the options it runs in every so many steps alone.

    In between, a row's residuals are those of the step where they were made last; a row tagged None is never kept.
    """
    cache, every = options.get(RUN_KEY), options.get(EVERY_KEY, 1)
    if cache is None or every == 1:
        return retain(list(range(len(tags))))
    steps: list[float] = cache.entries.setdefault("timesteps", [])
    if timestep not in steps:
        steps.append(timestep)
    # Context windows hold other frames under the same tags.
    window = getattr(options.get("context_window"), "index_list", ())
    kept: dict = cache.entries.setdefault(("residuals", tuple(window)), {})
    due = steps.index(timestep) % every == 0
    rows = [row for row, tag in enumerate(tags) if due or tag is None or tag not in kept]
    made = {}
    if rows:
        residuals = retain(rows)
        one = torch.arange(len(rows), device=residuals.mid.device)
        made = {row: residuals.select(one[place : place + 1], num_frames) for place, row in enumerate(rows)}
        kept.update({tags[row]: made[row] for row in rows if tags[row] is not None})
    return Residuals.join([made[row] if row in made else kept[tag] for row, tag in enumerate(tags)])
