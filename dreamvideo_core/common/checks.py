"""Checks of user input. A message names the input, its value, what is allowed, and what to do.

`name` is the input's name as the user sees it: an option of the command line, or an input of a node. Every `check_` function
raises `InputError` unless its first sentence holds.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line checks its options before torch is imported
    from torch import Tensor

DOWNSCALE = 8  # pixels per latent along each side, for every autoencoder here
MAX_SEED = 2**64 - 1  # the largest seed that ComfyUI and torch take
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 2


class InputError(ValueError):
    """Something that the user can mend: an option, a file, a graph. The message is one line for them."""


def shown(value: object) -> str:
    """`repr` of an untrusted value for a message: on one line, and cut where it is long."""
    return _SHORT.repr(value)


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """`value` is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def check_text(name: str, text: str) -> None:
    """`text` can be encoded as UTF-8. JSON may hold half of a UTF-16 pair, which cannot, and which tokenizers refuse."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(error.start - 10, 0) : error.end + 10]
        raise InputError(f"{name} has half a character, in {shown(around)}; allowed: whole ones. Write it again") from None


def check_number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """`value` is finite, and from `low` to `high`."""
    if low <= value <= high and math.isfinite(value):
        return
    raise InputError(f"{name} is {value}; allowed: {f'{low} or more' if math.isinf(high) else f'{low} to {high}'}")


def check_positive(name: str, value: float) -> None:
    """`value` is finite, and more than 0."""
    if not 0 < value < math.inf:
        raise InputError(f"{name} is {value}; it must be more than 0")


def check_size(name: str, value: int, high: int | None = None) -> None:
    """`value` is a width or a height in pixels that latents can have: a multiple of 8, up to `high`."""
    if value >= DOWNSCALE and value % DOWNSCALE == 0 and (high is None or value <= high):
        return
    nearest = max(DOWNSCALE, DOWNSCALE * round(value / DOWNSCALE))
    nearest, limit = (nearest, "") if high is None else (min(nearest, high), f" up to {high}")
    raise InputError(f"{name} is {value}; allowed: multiples of {DOWNSCALE}{limit}. Take {nearest}")


def check_interval(start_name: str, start: float, end_name: str, end: float) -> None:
    """`start` and `end` are shares of the noise schedule, from 0 to 1, and in this order."""
    if not 0 <= start <= end <= 1:
        raise InputError(
            f"{start_name} is {start} and {end_name} is {end}; both are shares of the noise schedule, 0 to 1, and {start_name} "
            f"must not be after {end_name}"
        )


def check_finite(name: str, values: Tensor, advice: str) -> None:
    """No value is NaN or infinite; `advice` ends the message."""
    if not values.isfinite().all():
        raise InputError(f"{name} has values that are no numbers (NaN or infinite); {advice}")


def check_image(name: str, image: Tensor) -> None:
    """`image` is (B, 3, H, W), not empty, and finite."""
    if image.ndim != 4 or image.shape[1] != 3 or not image.numel():
        raise InputError(f"{name} has shape {tuple(image.shape)}; allowed: (batch, 3, height, width), none of them 0")
    check_finite(name, image, "make or load the image again")
