"""Measures of whole sets of clips, from a network's outputs for each clip: Fréchet distance and inception score."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..common.checks import InputError, check_finite

LEAST_CLIPS = 2  # one clip has no covariance


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance of the normal distributions of features (N, D) and (M, D); N and M at least 2.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) with means m and sample covariances S (divided by N - 1), in float64: Heusel
    et al., arXiv 1706.08500. Over I3D's features it is FVD: Unterthiner et al., arXiv 1812.01717. Raises `InputError` for
    other shapes and for values that are not finite.
    """
    for name, features in (("first", first), ("second", second)):
        _check(name, features, LEAST_CLIPS)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"first has {first.shape[1]} features, second {second.shape[1]}; they must be equally many")
    first, second = first.double(), second.double()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    a, b = _factor(first), _factor(second)
    # With S1 = a^T a and S2 = b^T b, Tr (S1 S2)^(1/2) is the sum of the singular values of a b^T. Exact if S is singular.
    overlap = torch.linalg.svdvals(a @ b.mT).sum()
    return max(0.0, float(shift + a.square().sum() + b.square().sum() - 2 * overlap))


def _factor(features: Tensor) -> Tensor:
    """A matrix a of (min(N, D), D); a^T a is the covariance of the features (N, D)."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(centred, mode="r").R


def inception_score(logits: Tensor) -> float:
    """exp of the mean divergence KL(p(label | clip) || p(label)) of logits (N, K), all clips in one group: from 1 to K.

    Salimans et al., arXiv 1606.03498, in float64. Raises `InputError` for other shapes and for values that are not finite.
    """
    _check("logits", logits, 1)
    log_p = logits.double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())


def _check(name: str, values: Tensor, least: int) -> None:
    if values.ndim != 2 or len(values) < least or not values.shape[1]:
        raise InputError(f"{name} has shape {tuple(values.shape)}; allowed: (clips, values), at least {least} clips")
    check_finite(name, values, "the network that gave them is damaged")
