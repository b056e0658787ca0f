"""What sets of clips are worth as sets, from what a network says of each clip: Fréchet distance and inception score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_CLIPS = 2  # of one clip there is no covariance


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between the normal distributions of two sets of features (N, D) and (M, D), N and M at least 2.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) with the sample covariances S (divided by N - 1): Heusel et al., arXiv
    1706.08500; over I3D's features it is FVD, Unterthiner et al., arXiv 1812.01717. In float64. Other shapes and values
    that are no numbers raise ValueError.
    """
    for name, features in (("first", first), ("second", second)):
        _check(name, features, LEAST_CLIPS)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"first has {first.shape[1]} features, second {second.shape[1]}; they must be equally many")
    first, second = first.double(), second.double()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    a, b = _factor(first), _factor(second)
    # The eigenvalues of S1 S2 are the squared singular values of a b^T, which are exact for singular covariances too.
    overlap = torch.linalg.svdvals(a @ b.mT).sum()
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2 * overlap))


def _factor(features: Tensor) -> Tensor:
    """A matrix (min(N, D), D) whose a^T a is the covariance."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(centred, mode="r").R


def inception_score(logits: Tensor) -> float:
    """exp of the mean divergence KL(p(label | clip) || p(label)) over all clips at once: logits (N, K), 1 to K.

    Salimans et al., arXiv 1606.03498. In float64. Other shapes and values that are no numbers raise ValueError.
    """
    _check("logits", logits, 1)
    log_p = logits.double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())


def _check(name: str, values: Tensor, least: int) -> None:
    if values.ndim != 2 or len(values) < least or not values.shape[1]:
        raise ValueError(f"{name} has shape {tuple(values.shape)}; allowed: (clips, values), at least {least} clips")
    if not values.isfinite().all():
        raise ValueError(f"{name} has values that are no numbers (NaN or infinite)")
