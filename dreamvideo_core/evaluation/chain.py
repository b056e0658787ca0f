"""How well chains last: every stage is compared with the true rendering of its sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from einops import rearrange
from kornia.color import rgb_to_lab
from torch import Tensor

from ..common.checks import check_number
from ..sampling.chain import MAX_STAGES, Stage, run_chain
from ..sampling.pipeline import Pipeline
from ..sprites import Clip, render, sample_chain, sentence
from ..sprites.scene import seeded
from .metrics import first_frame_ssim
from .protocol import BaseProtocol
from .reading import is_done
from .sprites import Candidates, looks_alike

_COLOURS = ("brightness", "contrast", "saturation")
MEASURES = ("fff_ssim", "action_done", "action_accuracy", *_COLOURS)


@dataclass(frozen=True, kw_only=True)
class ChainProtocol(BaseProtocol):
    """`chains` scenes, each with a chain of `stages` sentences; `anchor` as in `run_chain`."""

    chains: int
    stages: int
    anchor: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_number("chains", self.chains, 1)
        check_number("stages", self.stages, 1, MAX_STAGES)


def measure_chains(
    pipeline: Pipeline, protocol: ChainProtocol, on_chain: Callable[[int], None] = lambda done: None
) -> list[dict[str, float]]:
    """The means of `MEASURES` over all chains, for every stage; colours are ratios to the true clip's.

    `action_done` reads the sprites' motion from the pixels, wherever they are. `action_accuracy` asks for the nearest true
    clip, so drift of colours, shapes and positions counts as well.
    """
    rows: list[list[dict[str, float]]] = []
    for index in range(protocol.chains):
        rows.append(_measure_chain(pipeline, protocol, index))
        on_chain(index + 1)
    return [{name: sum(row[name] for row in stage) / len(stage) for name in MEASURES} for stage in zip(*rows, strict=True)]


def generate_chain(pipeline: Pipeline, protocol: ChainProtocol, index: int) -> tuple[list[Clip], Tensor]:
    """The true clips of chain number `index`, from 0, and the generated ones: (stages, T, 3, H, W) in [-1, 1]."""
    p = protocol
    clips = sample_chain(seeded(p.split, p.seed, index), p.stages, p.num_frames, p.height, p.width)
    stages = [Stage(number, sentence(clip), p.seed + index * p.stages + number) for number, clip in enumerate(clips, 1)]
    image = render(clips[0], **p.size)[:1]
    made = run_chain(pipeline, stages, image, seam="keep", anchor=p.anchor, **p.options)
    return clips, rearrange(made.frames.float().cpu(), "(n t) c h w -> n t c h w", n=p.stages)


def _measure_chain(pipeline: Pipeline, protocol: ChainProtocol, index: int) -> list[dict[str, float]]:
    clips, made = generate_chain(pipeline, protocol, index)
    return [_measure_stage(frames, clip, protocol.size) for frames, clip in zip(made, clips, strict=True)]


def _measure_stage(made: Tensor, clip: Clip, size: dict[str, int]) -> dict[str, float]:
    true = render(clip, **size)
    found = Candidates.of(clip.scene, **size).nearest(made)
    ratios = {name: a / b for (name, a), b in zip(colours(made[-1]).items(), colours(true[-1]).values(), strict=True)}
    return {
        "fff_ssim": float(first_frame_ssim(made[-1:], true[-1:])),
        "action_done": float(is_done(clip, made)),
        "action_accuracy": float(looks_alike(found, clip)),
        **ratios,
    }


def colours(image: Tensor) -> dict[str, float]:
    """Mean lightness, its standard deviation and mean chroma in CIELAB, of a picture (3, H, W) in [-1, 1]."""
    lab = rgb_to_lab((image.clamp(-1, 1) + 1) / 2)
    return dict(zip(_COLOURS, (float(lab[0].mean()), float(lab[0].std()), float(lab[1:].norm(dim=0).mean())), strict=True))
