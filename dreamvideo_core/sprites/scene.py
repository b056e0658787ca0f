"""Descriptions of the small world: what frame 0 shows, and what happens next.

A scene is sampled from a seed and has no size in pixels: positions are fractions of each side, lengths are fractions of the
shorter side. Any sprite can perform any action, so every sentence about a scene has one true clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.10, 0.12),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.97, 0.90, 0.10),
    "green": (0.10, 0.68, 0.20),
    "cyan": (0.10, 0.85, 0.90),
    "blue": (0.12, 0.25, 0.92),
    "purple": (0.52, 0.14, 0.75),
    "pink": (0.98, 0.50, 0.75),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "dots", "clouds")

# An action has one speed, so that a sentence has one true clip. Per frame: the centre's move (x, y) in units of the shorter
# side, and the growth as a share of the size.
SPEED = 0.04
GROWTH = 0.10
ACTIONS: dict[str, tuple[float, float, float]] = {
    "left": (-SPEED, 0.0, 0.0),
    "right": (SPEED, 0.0, 0.0),
    "up": (0.0, -SPEED, 0.0),
    "down": (0.0, SPEED, 0.0),
    "grow": (0.0, 0.0, GROWTH),
    "shrink": (0.0, 0.0, -GROWTH * 0.7),
    "still": (0.0, 0.0, 0.0),
}

# The split is the first word of every seed, so scenes of different splits never share one.
SPLITS = ("train", "validation", "test")
# Centres lie this far inside, as a share of each side: sprites are whole in frame 0, and may leave later.
MARGIN = 0.22
_SIZE = (0.11, 0.19)  # radii, as shares of the shorter side
_GAP = 0.04  # the least distance between sprites
_WAVES = 6  # per background


@dataclass(frozen=True)
class Sprite:
    """A flat shape: `x`, `y` its centre as fractions of width and height, `size` its radius in shorter sides."""

    shape: str
    colour: str
    size: float
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Background:
    """A muted texture between two colours; `waves` holds (cycles, angle, phase) of its components."""

    kind: str
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    waves: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Scene:
    """Frame 0: a background and one or two sprites that never share a colour."""

    background: Background
    sprites: tuple[Sprite, ...]


@dataclass(frozen=True)
class Clip:
    """A scene in which sprite number `actor` performs `action`."""

    scene: Scene
    actor: int
    action: str

    def __post_init__(self):
        if self.action not in ACTIONS:
            raise ValueError(f"action is {self.action!r}; allowed: {', '.join(ACTIONS)}")
        if not 0 <= self.actor < len(self.scene.sprites):
            raise ValueError(f"actor is {self.actor}; the scene has sprites 0 to {len(self.scene.sprites) - 1}")


def advanced(clip: Clip, frames: int, height: int, width: int) -> Scene:
    """The scene after so many frames of a clip of `height` x `width`."""
    dx, dy, growth = (frames * change for change in ACTIONS[clip.action])
    shorter = min(height, width)
    actor = clip.scene.sprites[clip.actor]
    moved = replace(actor, x=actor.x + dx * shorter / width, y=actor.y + dy * shorter / height, size=actor.size * (1 + growth))
    sprites = (*clip.scene.sprites[: clip.actor], moved, *clip.scene.sprites[clip.actor + 1 :])
    return replace(clip.scene, sprites=sprites)


def seeded(split: str, seed: int, index: int) -> np.random.Generator:
    """The random stream of scene `index` of a split; equal arguments give equal streams on every machine."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; allowed: {', '.join(SPLITS)}")
    return np.random.default_rng([SPLITS.index(split), seed, index])


def pick(rng: np.random.Generator, options: Sequence[Option]) -> Option:
    """A random option. `rng.choice` draws the same one, but converts it to an array and is several times as slow."""
    return options[rng.integers(len(options))]


def sample_background(rng: np.random.Generator) -> Background:
    base = rng.uniform(0.25, 0.80)
    tint = rng.uniform(-0.10, 0.10, size=(2, 3))
    contrast = pick(rng, (-1, 1)) * rng.uniform(0.08, 0.20)
    colours = np.clip(np.array([base - contrast / 2, base + contrast / 2])[:, None] + tint, 0.05, 0.95)
    waves = np.stack([rng.uniform(2, 5, _WAVES), rng.uniform(0, np.pi, _WAVES), rng.uniform(0, 2 * np.pi, _WAVES)], 1)
    return Background(
        kind=pick(rng, BACKGROUNDS),
        colours=tuple(tuple(float(c) for c in row) for row in colours),
        waves=tuple(tuple(float(w) for w in row) for row in waves),
    )


def sample_sprite(rng: np.random.Generator, others: tuple[Sprite, ...], margin: float = MARGIN) -> Sprite:
    """A sprite that shares no colour with the others and does not touch them in frame 0."""
    colours = [c for c in COLOURS if c not in {s.colour for s in others}]
    while True:
        x, y = rng.uniform(margin, 1 - margin, size=2)
        size = rng.uniform(*_SIZE)
        if all(np.hypot(x - s.x, y - s.y) > size + s.size + _GAP for s in others):
            break
    return Sprite(pick(rng, SHAPES), pick(rng, colours), float(size), float(x), float(y))


def sample_scene(rng: np.random.Generator, margin: float = MARGIN) -> Scene:
    """A scene with one or two sprites, equally likely; a small `margin` leaves some partly outside."""
    background = sample_background(rng)
    sprites: tuple[Sprite, ...] = ()
    for _ in range(rng.integers(1, 3)):
        sprites += (sample_sprite(rng, sprites, margin),)
    return Scene(background, sprites)


def sample_clip(rng: np.random.Generator, margin: float = MARGIN) -> Clip:
    """A random action of a random sprite of a random scene."""
    scene = sample_scene(rng, margin)
    return Clip(scene, int(rng.integers(len(scene.sprites))), pick(rng, tuple(ACTIONS)))
