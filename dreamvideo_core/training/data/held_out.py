"""Held-out clips: never trained on, so that samples show what was not memorised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FILES_PER_HELD_OUT = 10


def choose_held_out(files: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` of the usable files, at most a tenth of them. The same files and seed give the same choice."""
    count = min(count, len(files) // _FILES_PER_HELD_OUT)
    return sorted(int(n) for n in np.random.default_rng([seed, len(files)]).choice(files, count, replace=False))
