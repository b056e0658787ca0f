"""Rendering the small world: batched, antialiased, and at any size.

Shapes are signed distance functions of points in units of the sprite's radius, negative inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from einops import repeat
from torch import Tensor

from .scene import ACTIONS, BACKGROUNDS, COLOURS, SHAPES, Background, Clip, Sprite


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float) -> Tensor:
    return torch.maximum(x.abs() - half_width, y.abs() - half_height)


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1.0


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.85, 0.85)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    slope = x.abs() * math.cos(math.pi / 6) - y * math.sin(math.pi / 6)
    return torch.maximum(slope, y) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    # By symmetry all points are folded into one tenth of the star; there the edge is a line from a tip to an inner corner.
    wedge = 2 * math.pi / 5
    angle = torch.atan2(x, -y)
    angle = (torch.remainder(angle + wedge / 2, wedge) - wedge / 2).abs()
    radius = torch.hypot(x, y)
    along, across = radius * torch.cos(angle), radius * torch.sin(angle)
    tip, inner = 1.1, 0.5
    corner = (inner * math.cos(wedge / 2), inner * math.sin(wedge / 2))
    edge = (corner[0] - tip, corner[1])
    length = math.hypot(*edge)
    return ((along - tip) * edge[1] - across * edge[0]) / length


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.28


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, 1.0, 0.34), _box(x, y, 0.34, 1.0))


_DISTANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = dict(
    zip(SHAPES, (_circle, _square, _triangle, _star, _ring, _cross), strict=True)
)


class _Waves:
    """Plane waves of N backgrounds on a grid (H, W); calling it gives one component, (N, H, W) in [-1, 1]."""

    def __init__(self, backgrounds: Sequence[Background], x: Tensor, y: Tensor):
        self.parameters = torch.tensor([b.waves for b in backgrounds])[..., None, None]
        self.x, self.y = x, y

    def __len__(self) -> int:
        return self.parameters.shape[1]

    def __call__(self, component: int, frequency: float = 1.0, turn: float = 0.0) -> Tensor:
        cycles, angle, phase = self.parameters[:, component].unbind(1)
        along = self.x * torch.cos(angle + turn) + self.y * torch.sin(angle + turn)
        return torch.sin(2 * math.pi * cycles * frequency * along + phase)


def _clouds(waves: _Waves) -> Tensor:
    return torch.sigmoid(sum(waves(i, 0.5) / (1 + 0.5 * i) for i in range(len(waves))))


# The share of a background's second colour at each point. Soft edges avoid aliasing.
_MIX: dict[str, Callable[[_Waves], Tensor]] = dict(
    zip(
        BACKGROUNDS,
        (
            lambda waves: torch.full_like(waves(0), 0.5),
            lambda waves: 0.5 + 0.5 * waves(0, 0.1),
            lambda waves: torch.sigmoid(5 * waves(0)),
            lambda waves: torch.sigmoid(6 * waves(0, 0.5) * waves(0, 0.5, math.pi / 2)),
            lambda waves: torch.sigmoid(6 * (waves(0, 0.6) * waves(0, 0.6, math.pi / 2) - 0.4)),
            _clouds,
        ),
        strict=True,
    )
)


def _indices_by_kind(kinds: Sequence[str]) -> dict[str, list[int]]:
    indices: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        indices.setdefault(kind, []).append(index)
    return indices


def _draw_backgrounds(backgrounds: Sequence[Background], x: Tensor, y: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    mix = torch.empty(len(backgrounds), 1, *x.shape)
    for kind, indices in _indices_by_kind([b.kind for b in backgrounds]).items():
        mix[indices, 0] = _MIX[kind](_Waves([backgrounds[i] for i in indices], x, y))
    first, second = torch.tensor([b.colours for b in backgrounds])[..., None, None].unbind(1)
    return first + (second - first) * mix


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """x and y of the pixels' centres in units of the shorter side, (H, W) each."""
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / min(height, width) for n in (height, width)), indexing="ij")
    return x, y


def _coverage(sprites: Sequence[Sprite], actions: Sequence[str], num_frames: int, x: Tensor, y: Tensor) -> Tensor:
    """The share of each pixel that each of N sprites covers while it acts: (N, T, H, W) in [0, 1]."""
    frames = torch.arange(num_frames, dtype=torch.float32)
    dx, dy, growth = (v[:, None] * frames for v in torch.tensor([ACTIONS[a] for a in actions]).unbind(1))
    size = torch.tensor([s.size for s in sprites])[:, None] * (1 + growth).clamp(min=0.05)
    # Positions are fractions of each side; the first and last pixel centres of the grid add up to the side's length.
    centre_x = torch.tensor([s.x for s in sprites])[:, None] * (x[0, -1] + x[0, 0]) + dx
    centre_y = torch.tensor([s.y for s in sprites])[:, None] * (y[-1, 0] + y[0, 0]) + dy
    across, down = ((g - c[..., None, None]) / size[..., None, None] for g, c in ((x, centre_x), (y, centre_y)))
    distance = torch.empty_like(across)
    for shape, indices in _indices_by_kind([s.shape for s in sprites]).items():
        distance[indices] = _DISTANCE[shape](across[indices], down[indices])
    return (0.5 - distance * size[..., None, None] * min(x.shape)).clamp(0, 1)


def _draw_sprites(canvas: Tensor, sprites: Sequence[Sprite], actions: Sequence[str], x: Tensor, y: Tensor) -> Tensor:
    """Draw one sprite onto each of N clips: `canvas` (N, T, 3, H, W) in [0, 1]; `x` and `y` as `_grid` gives them."""
    coverage = _coverage(sprites, actions, canvas.shape[1], x, y)[:, :, None]
    colour = torch.tensor([COLOURS[s.colour] for s in sprites])[:, None, :, None, None]
    return canvas + (colour - canvas) * coverage


def render_batch(clips: Sequence[Clip], *, num_frames: int = 8, height: int = 64, width: int = 64) -> Tensor:
    """The true pixels of clips: (N, T, 3, H, W) in [-1, 1]. The acting sprite is in front of the other."""
    if min(num_frames, height, width) < 1:
        raise ValueError(f"num_frames, height and width are {num_frames}, {height} and {width}; all must be at least 1")
    x, y = _grid(height, width)
    background = _draw_backgrounds([c.scene.background for c in clips], x, y)
    canvas = repeat(background, "n c h w -> n t c h w", t=num_frames).contiguous()
    with_two = [index for index, c in enumerate(clips) if len(c.scene.sprites) == 2]
    if with_two:
        others = [clips[index].scene.sprites[1 - clips[index].actor] for index in with_two]
        canvas[with_two] = _draw_sprites(canvas[with_two], others, ["still"] * len(others), x, y)
    canvas = _draw_sprites(canvas, [c.scene.sprites[c.actor] for c in clips], [c.action for c in clips], x, y)
    return canvas * 2 - 1


def cover_batch(
    sprites: Sequence[Sprite], actions: Sequence[str], *, num_frames: int = 8, height: int = 64, width: int = 64
) -> Tensor:
    """The share of each pixel that each sprite covers while it performs its action: (N, T, H, W) in [0, 1]."""
    return _coverage(sprites, actions, num_frames, *_grid(height, width))


def render(clip: Clip, *, num_frames: int = 8, height: int = 64, width: int = 64) -> Tensor:
    """The true pixels of one clip: (T, 3, H, W) in [-1, 1]."""
    return render_batch([clip], num_frames=num_frames, height=height, width=width)[0]
