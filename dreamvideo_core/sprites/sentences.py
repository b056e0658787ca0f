"""Sentences of the small world: a sprite's name and one of many wordings of its action."""

from __future__ import annotations

import numpy as np

from .scene import COLOURS, SHAPES, Clip, pick

ARTICLES = ("the {}", "a {}", "{}")
SYNONYMS: dict[str, tuple[str, ...]] = {
    "circle": ("ball", "disc"),
    "square": ("box", "block"),
    "triangle": ("wedge",),
    "star": ("starfish",),
    "ring": ("hoop", "loop"),
    "cross": ("plus",),
}
WORDINGS: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "moves to the left", "goes left", "slides to the left"),
    "right": ("moves right", "moves to the right", "goes right", "slides to the right"),
    "up": ("moves up", "goes up", "rises", "moves upwards"),
    "down": ("moves down", "goes down", "falls", "moves downwards"),
    "grow": ("grows", "gets bigger", "becomes larger", "expands"),
    "shrink": ("shrinks", "gets smaller", "becomes smaller", "contracts"),
    "still": ("stays still", "does not move", "stands still", "stays where it is"),
}
PARTICIPLES: dict[str, tuple[str, ...]] = {
    "left": ("moving left", "moving to the left", "going left", "sliding to the left"),
    "right": ("moving right", "moving to the right", "going right", "sliding to the right"),
    "up": ("moving up", "going up", "rising", "moving upwards"),
    "down": ("moving down", "going down", "falling", "moving downwards"),
    "grow": ("growing", "getting bigger", "becoming larger", "expanding"),
    "shrink": ("shrinking", "getting smaller", "becoming smaller", "contracting"),
    "still": ("staying still", "not moving", "standing still", "staying where it is"),
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "left": ("move {} left", "move {} to the left", "make {} go left", "slide {} to the left"),
    "right": ("move {} right", "move {} to the right", "make {} go right", "slide {} to the right"),
    "up": ("move {} up", "make {} go up", "raise {}", "move {} upwards"),
    "down": ("move {} down", "make {} go down", "lower {}", "move {} downwards"),
    "grow": ("grow {}", "make {} bigger", "make {} grow", "expand {}"),
    "shrink": ("shrink {}", "make {} smaller", "make {} shrink", "contract {}"),
    "still": ("keep {} still", "do not move {}", "let {} stand still", "keep {} where it is"),
}
STATEMENTS = ("{name} {wording}", "a video of {name} that {wording}", "a video in which {name} {wording}")
DESCRIPTIONS = ("{name} is {participle}", "{name} {participle}", "a video of {name} {participle}")

_WORDS = {"wording": WORDINGS, "participle": PARTICIPLES, "command": COMMANDS}
_PLAINEST = STATEMENTS[0]
_TEMPLATES = (*[_PLAINEST] * 3, *STATEMENTS[1:], *DESCRIPTIONS, *["{command}"] * 2)  # more frequent ones are listed more often
_SYNONYMS = 0.2  # the share of sentences with a synonym of the shape


def sentence(clip: Clip, rng: np.random.Generator | None = None) -> str:
    """A random sentence about a clip, or without `rng` the plainest one, such as "the red circle moves left"."""
    sprite = clip.scene.sprites[clip.actor]
    if rng is None:
        return _PLAINEST.format(name=ARTICLES[0].format(sprite.name), wording=WORDINGS[clip.action][0])
    shape = pick(rng, SYNONYMS[sprite.shape]) if rng.random() < _SYNONYMS else sprite.shape
    name = pick(rng, ARTICLES).format(f"{sprite.colour} {shape}")
    words = {kind: pick(rng, wordings[clip.action]).format(name) for kind, wordings in _WORDS.items()}
    return pick(rng, _TEMPLATES).format(name=name, **words)


def phrases() -> list[str]:
    """Texts that together hold every word of every sentence."""
    blanks = [template.format("", name="", wording="", participle="") for template in (*ARTICLES, *STATEMENTS, *DESCRIPTIONS)]
    names = (*COLOURS, *SHAPES, *(synonym for synonyms in SYNONYMS.values() for synonym in synonyms))
    wordings = (text.format("") for by_action in _WORDS.values() for texts in by_action.values() for text in texts)
    return [*blanks, *names, *wordings]
