"""The small world: seeded procedural clips whose every frame and label is known exactly."""

from .chains import candidates, sample_chain
from .render import cover_batch, render, render_batch
from .scene import ACTIONS, COLOURS, SHAPES, Background, Clip, Scene, Sprite, sample_clip, sample_scene
from .sentences import phrases, sentence

__all__ = [
    "ACTIONS",
    "COLOURS",
    "SHAPES",
    "Background",
    "Clip",
    "Scene",
    "Sprite",
    "candidates",
    "cover_batch",
    "phrases",
    "render",
    "render_batch",
    "sample_chain",
    "sample_clip",
    "sample_scene",
    "sentence",
]
