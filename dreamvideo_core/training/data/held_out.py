"""Clips that are never trained on, so that samples show what was not learned by heart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_CLIPS_FOR_EACH = 10


def choose_held_out(files: Sequence[int], count: int, seed: int) -> list[int]:
    """`count` of the files that can be used, but never more than a tenth of them: a function of the files and the seed."""
    count = min(count, len(files) // _CLIPS_FOR_EACH)
    return sorted(int(n) for n in np.random.default_rng([seed, len(files)]).choice(files, count, replace=False))
