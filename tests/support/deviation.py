"""How far what was computed is from the truth."""

from torch import Tensor


def relative_error(made: Tensor, true: Tensor) -> float:
    return ((made - true).norm() / true.norm()).item()
