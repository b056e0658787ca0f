"""The pictures that a model hands over in chains, made before it is trained on them.

They have lost what the model loses, no more and no less. Trained with the true clips, it learns to mend what it is handed.
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
from .cache import ALONE, Makers, Rows, make_blocks
from .data.sprites import SpriteSource

_TOGETHER = 16  # chains: a block's, where they have four stages


def cached_hand_overs(folder: Path, source: SpriteSource, pipeline: Pipeline, model: str, makers: Makers = ALONE) -> Rows:
    """Row r is what clip r of the source begins with where `pipeline` makes the chain up to it: (3, H, W), uint8.

    Made below `folder` where that lacks them; `model` names the weights, so that others do not find their pictures. A chain
    begins with its true first frame.
    """
    folder = folder / f"hand-overs-{source.cache_name}-{model}"
    blocks = make_blocks(folder, len(source), lambda block: ({"images": _handed_over(source, block, pipeline)}, {}), makers)
    return Rows([load_file(path)["images"] for _, path in blocks])


def _handed_over(source: SpriteSource, rows: range, pipeline: Pipeline) -> Tensor:
    rows = range(rows.start, min(rows.stop, len(source)))  # the last block may go beyond the end
    length = source.phase.chain_stages
    chains = range(rows.start // length, (rows.stop - 1) // length + 1)
    parts = [_images(source, chains[group : group + _TOGETHER], pipeline) for group in range(0, len(chains), _TOGETHER)]
    first = rows.start - chains.start * length
    return torch.cat(parts)[first : first + len(rows)]


def _images(source: SpriteSource, numbers: Sequence[int], pipeline: Pipeline) -> Tensor:
    """What the stages of some chains begin with, chain by chain; several chains at once, unlike `run_chain`."""
    clips = [source.chain(number) for number in numbers]
    images = [render_batch([stages[0] for stages in clips], **source.shape)[:, 0]]
    for stage in zip(*(stages[:-1] for stages in clips), strict=True):
        made = pipeline(
            [sentence(clip) for clip in stage], images[-1], seed=len(images) + numbers[0], num_frames=source.shape["num_frames"]
        )
        images.append(made[:, -1].float().cpu())
    return to_uint8(torch.stack(images, 1).flatten(0, 1)).contiguous()
