"""Frames of high dynamic range or wide gamut as sRGB pictures.

Light is relative to reference white, 203 cd/m2 (ITU-R BT.2408). Reference white becomes the picture's white; in PQ and HLG it
becomes somewhat darker, so that brighter light has room above it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from einops import rearrange
from kornia.color import linear_rgb_to_rgb, rgb_to_linear_rgb
from torch import Tensor

from .h273 import BT709, BT2020, DISPLAY_P3, HLG, PQ

HDR = (PQ, HLG)
WIDE = (BT2020, DISPLAY_P3)

_REFERENCE_WHITE = 203.0  # cd/m2
_PEAK = 1000.0  # cd/m2: the nominal display of HLG; PQ is clipped here too
_HLG_GAMMA = 1.2  # the system gamma of a display with that peak
_HLG_A = 0.17883277
_HLG_B, _HLG_C = 1 - 4 * _HLG_A, 0.5 - _HLG_A * math.log(4 * _HLG_A)
_PQ_M1, _PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
_PQ_C1, _PQ_C2, _PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_LUMINANCE = (0.2627, 0.6780, 0.0593)  # of BT.2020

# CIE x and y of red, green, blue and white.
_D65 = (0.3127, 0.3290)
_CHROMATICITIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}


def to_srgb(signal: Tensor, transfer: int, primaries: int) -> Tensor:
    """A signal (H, W, 3) in [0, 1] as sRGB of the same shape and range; `transfer` and `primaries` are codes of `h273`.

    PQ and HLG are tone-mapped by the curve of ITU-R BT.2390; any other transfer function is taken for sRGB's. Primaries in
    `WIDE` are converted to sRGB's and clipped; any others are taken for sRGB's.
    """
    light = _toned(_hdr_light(signal, transfer)) if transfer in HDR else _channelwise(rgb_to_linear_rgb, signal)
    if primaries in WIDE:
        light = light @ (_from_xyz(BT709) @ _to_xyz(primaries)).T.to(light)
    return _channelwise(linear_rgb_to_rgb, light.clamp(0, 1))


def _channelwise(change: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    """Apply a function of kornia's, which takes channels first, to (H, W, C)."""
    return rearrange(change(rearrange(picture, "h w c -> c h w")), "c h w -> h w c")


def _hdr_light(signal: Tensor, transfer: int) -> Tensor:
    """Light on the display; HLG's inverse OETF and OOTF are those of ITU-R BT.2100."""
    if transfer == PQ:
        return _pq_to_light(signal).clamp(max=_PEAK / _REFERENCE_WHITE)
    scene = torch.where(signal <= 0.5, signal.square() / 3, (((signal - _HLG_C) / _HLG_A).exp() + _HLG_B) / 12)
    luminance = scene @ scene.new_tensor(_LUMINANCE)
    return scene * luminance.clamp(min=1e-6).pow(_HLG_GAMMA - 1)[..., None] * (_PEAK / _REFERENCE_WHITE)


def _toned(light: Tensor) -> Tensor:
    """Light compressed to at most 1. All three channels are scaled by the brightest one's factor, so hues stay."""
    brightest = light.amax(-1, keepdim=True).clamp(min=1e-6)
    return light * (_pq_to_light(_roll_off(_light_to_pq(brightest))) / brightest)


def _roll_off(level: Tensor) -> Tensor:
    """BT.2390's curve on PQ levels: straight up to a knee, then a Hermite spline that maps the peak to white."""
    peak, white = (_light_to_pq(torch.tensor(light / _REFERENCE_WHITE)) for light in (_PEAK, _REFERENCE_WHITE))
    level, top = level / peak, white / peak
    knee = 1.5 * top - 0.5
    t = ((level - knee) / (1 - knee)).clamp(0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    return torch.where(level < knee, level, spline) * peak


def _pq_to_light(signal: Tensor) -> Tensor:
    power = signal.pow(1 / _PQ_M2)
    return ((power - _PQ_C1).clamp(min=0) / (_PQ_C2 - _PQ_C3 * power)).pow(1 / _PQ_M1) * (10000 / _REFERENCE_WHITE)


def _light_to_pq(light: Tensor) -> Tensor:
    power = (light * (_REFERENCE_WHITE / 10000)).pow(_PQ_M1)
    return ((_PQ_C1 + _PQ_C2 * power) / (1 + _PQ_C3 * power)).pow(_PQ_M2)


def _to_xyz(primaries: int) -> Tensor:
    """The matrix (3, 3) from linear red, green and blue to CIE XYZ."""
    points = torch.tensor([(x / y, 1, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]], dtype=torch.float64).T
    colours, white = points[:, :3], points[:, 3]
    return colours * torch.linalg.solve(colours, white)


def _from_xyz(primaries: int) -> Tensor:
    return torch.linalg.inv(_to_xyz(primaries))
