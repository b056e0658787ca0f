"""Dual-condition guidance as a weighted sum of evaluations (paper, Eq. 5).

An evaluation is f(text?, image?). Scales become weights over the four of them; those of weight zero are not run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..common.checks import InputError, check_choice, check_interval
from ..models.config import ORDERS
from .schedule import in_interval


class Evaluation(NamedTuple):
    """One pass of the model: with the text or the negative one, with the image or the empty one.

    The empty image is white for a retention branch, and grey for a model that sees it by CLIP.
    """

    text: bool
    image: bool


EMPTY = Evaluation(text=False, image=False)


def guidance_weights(
    text_scale: float,
    image_scale: float,
    order: str = "text_first",
    *,
    has_text: bool = True,
    has_image: bool = True,
) -> dict[Evaluation, float]:
    """The weight of each evaluation that must run; they sum to one.

    text_first is Eq. 5: f(0,0) + s_t [f(t,0) - f(0,0)] + s_i [f(t,i) - f(t,0)].
    image_first: f(0,0) + s_i [f(0,i) - f(0,0)] + s_t [f(t,i) - f(0,i)].
    A condition that is not there makes evaluations equal: those are merged, and dropped where their weights cancel.
    """
    for name, scale in (("text_scale", text_scale), ("image_scale", image_scale)):
        if not math.isfinite(scale) or scale < 0:
            raise InputError(f"{name} is {scale}; it must be a finite number, 0 or more (1 is no guidance)")
    check_choice("order", order, ORDERS)
    if order == "text_first":
        terms = {(0, 0): 1 - text_scale, (1, 0): text_scale - image_scale, (1, 1): image_scale}
    else:
        terms = {(0, 0): 1 - image_scale, (0, 1): image_scale - text_scale, (1, 1): text_scale}
    weights: dict[Evaluation, float] = {}
    for (text, image), weight in terms.items():
        evaluation = Evaluation(bool(text) and has_text, bool(image) and has_image)
        weights[evaluation] = weights.get(evaluation, 0.0) + weight
    return {evaluation: weight for evaluation, weight in weights.items() if abs(weight) > 1e-9}


def two_terms(weights: dict[Evaluation, float], results: dict[Evaluation, Tensor]) -> tuple[Tensor, float]:
    """The guided sum, S = sum of w_e f_e, as S = f(0,0) + scale (effective - f(0,0)); gives `effective` and `scale`.

    That is classifier-free guidance's form: scale = 1 - w_00, effective = (S - w_00 f(0,0)) / scale. Where w_00 is 1 there is
    no such form: `effective` is S, and `scale` is 1.
    """
    scale = 1 - weights.get(EMPTY, 0.0)
    if abs(scale) < 1e-9:
        return sum(weight * results[evaluation] for evaluation, weight in weights.items()), 1.0
    return sum(weight * results[evaluation] for evaluation, weight in weights.items() if evaluation != EMPTY) / scale, scale


@dataclass(frozen=True)
class Guidance:
    """How strongly a clip is guided, in which order, and when.

    `start` and `end` are shares of the noise schedule, 0 its noisiest end. Outside of them a step is f(t,i) alone, one
    evaluation (arXiv 2404.07724). `rescale` is the amount of `rescale_guidance`.
    """

    text_scale: float
    image_scale: float
    order: str = "text_first"
    rescale: float = 0.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self):
        guidance_weights(self.text_scale, self.image_scale, self.order)  # checks all three
        if not 0 <= self.rescale <= 1:
            raise InputError(f"rescale is {self.rescale}; allowed: 0 (off) to 1")
        check_interval("guidance_start", self.start, "guidance_end", self.end)

    def weights(self, timestep: float, *, has_text: bool = True, has_image: bool = True) -> dict[Evaluation, float]:
        """`guidance_weights` at a timestep, 999 (noise) to 0."""
        guided = in_interval(timestep, self.start, self.end)
        scales = (self.text_scale, self.image_scale) if guided else (1.0, 1.0)
        return guidance_weights(*scales, self.order, has_text=has_text, has_image=has_image)


def rescale_guidance(guided: Tensor, conditional: Tensor, amount: float) -> Tensor:
    """Bring the guided result (B, ...) towards the spread that the conditional one has (arXiv 2305.08891, Eq. 15-16).

    `amount` 0 changes nothing, 1 takes over the whole of it; high scales brighten and harden pictures less so.
    """
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(axes, keepdim=True) / guided.std(axes, keepdim=True).clamp(min=1e-8)
    return guided * (1 + amount * (ratio - 1))
