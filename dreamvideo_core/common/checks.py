"""Checks of what a person gives. The messages say which input, its value, what is allowed, and what to do.

`name` is what the input is called where the person gave it: an option of the command line, an input of a node.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

from torch import Tensor

DOWNSCALE = 8  # pixels of a picture for one of its latents, along each side, in every layout
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2


class InputError(ValueError):
    """An input that cannot be used; the message is one line for the person who gave it."""


def shown(value: object) -> str:
    """A value of unknown origin as a message shows it: on one line, never long."""
    return _SHORT.repr(value)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def check_text(name: str, text: str) -> None:
    """`text` has no half of a pair of UTF-16, which JSON can hold and no encoding: tokenizers refuse it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 10, 0) : error.end + 10]
        raise InputError(f"{name} has half a character, in {shown(around)}; allowed: whole ones. Write it again") from None


def check_number(name: str, value: float, low: float, high: float) -> None:
    """`value` is a number, not NaN, from `low` to `high`; `high` may be infinite, the value may not."""
    if low <= value <= high and math.isfinite(value):
        return
    raise InputError(f"{name} is {value}; allowed: {f'{low} or more' if math.isinf(high) else f'{low} to {high}'}")


def check_size(name: str, value: int) -> None:
    """`value` is a width or a height that the autoencoder can make."""
    if value < DOWNSCALE or value % DOWNSCALE:
        nearest = max(DOWNSCALE, DOWNSCALE * round(value / DOWNSCALE))
        raise InputError(f"{name} is {value}; allowed: multiples of {DOWNSCALE}. Take {nearest}")


def check_image(name: str, image: Tensor) -> None:
    """`image` is (B, 3, H, W), not empty, and every value is a number."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        raise InputError(f"{name} has shape {tuple(image.shape)}; allowed: (batch, 3, height, width), none of them 0")
    if not image.isfinite().all():
        raise InputError(f"{name} has values that are not numbers (NaN or infinite); make or load the image again")
