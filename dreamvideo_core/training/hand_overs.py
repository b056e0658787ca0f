"""The pictures that a model hands over from stage to stage of a chain, generated before it is trained on them.

They have the model's own losses of quality. Trained on them with the true clips as targets, it learns to repair these losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..media.images import to_uint8
from ..sampling.pipeline import Pipeline
from ..sprites import render_batch, sentence
from .cache import ALONE, CachedRows, Processes, fill_cache
from .data.sprites import SpriteSource

_BATCH = 16  # chains; of four stages each they fill one file of the cache


def cached_hand_overs(
    folder: Path, source: SpriteSource, pipeline: Pipeline, model: str, processes: Processes = ALONE
) -> CachedRows:
    """Row r is the image of clip r of the source if `pipeline` generates the chain before it: (3, H, W), uint8.

    The first image of a chain is its true first frame. `model` names the pipeline's weights in the cache's folder below
    `folder`, which other weights must not share.
    """
    folder = folder / f"hand-overs-{source.cache_name}-{model}"
    files = fill_cache(folder, len(source), lambda rows: ({"images": _hand_overs(source, rows, pipeline)}, {}), processes)
    return CachedRows([load_file(path)["images"] for _, path in files])


def _hand_overs(source: SpriteSource, rows: range, pipeline: Pipeline) -> Tensor:
    rows = range(rows.start, min(rows.stop, len(source)))  # the last file's range may go beyond the end
    length = source.phase.chain_stages
    chains = range(rows.start // length, (rows.stop - 1) // length + 1)
    images = torch.cat([_images(source, chains[i : i + _BATCH], pipeline) for i in range(0, len(chains), _BATCH)])
    first = rows.start - chains.start * length
    return images[first : first + len(rows)]


def _images(source: SpriteSource, numbers: Sequence[int], pipeline: Pipeline) -> Tensor:
    """The first images of all stages of some chains, chain by chain. Unlike `run_chain` it samples chains in batches."""
    clips = [source.chain(number) for number in numbers]
    images = [render_batch([stages[0] for stages in clips], **source.shape)[:, 0]]
    for stage in zip(*(stages[:-1] for stages in clips), strict=True):
        made = pipeline(
            [sentence(clip) for clip in stage], images[-1], seed=len(images) + numbers[0], num_frames=source.shape["num_frames"]
        )
        images.append(made[:, -1].float().cpu())
    return to_uint8(torch.stack(images, 1).flatten(0, 1)).contiguous()
