"""Sentences of the small world: a sprite's name and one of several wordings of its action."""

from __future__ import annotations

import numpy as np

from .scene import COLOURS, SHAPES, Clip

ARTICLES = ("the {}", "a {}", "{}")
WORDINGS: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "moves to the left", "goes left", "slides to the left"),
    "right": ("moves right", "moves to the right", "goes right", "slides to the right"),
    "up": ("moves up", "goes up", "rises", "moves upwards"),
    "down": ("moves down", "goes down", "falls", "moves downwards"),
    "grow": ("grows", "gets bigger", "becomes larger", "expands"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "contracts"),
    "still": ("stays still", "does not move", "stands still", "stays where it is"),
}


def sentence(clip: Clip, rng: np.random.Generator | None = None) -> str:
    """The sentence of a clip, such as "the red circle moves left"; the plainest wording without `rng`."""
    name = clip.scene.sprites[clip.actor].name
    article = ARTICLES[0] if rng is None else rng.choice(ARTICLES)
    wording = WORDINGS[clip.action][0] if rng is None else rng.choice(WORDINGS[clip.action])
    return f"{str(article).format(name)} {wording}"


def phrases() -> list[str]:
    """Pieces of text that together hold every word a sentence can have."""
    return [*(article.format("") for article in ARTICLES), *COLOURS, *SHAPES, *(w for ws in WORDINGS.values() for w in ws)]
