"""Fréchet distance and inception score against closed forms, scipy and plain numpy."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from dreamvideo_core.evaluation.distribution import frechet_distance, inception_score


def normal(clips: int, features: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(clips, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_covariance(variances: list[float], mean: list[float]) -> torch.Tensor:
    """Features whose sample covariance is exactly diagonal: plus and minus each axis."""
    count = len(variances)
    axes = torch.diag(torch.tensor(variances, dtype=torch.float64).sqrt()) * math.sqrt((2 * count - 1) / 2)
    return torch.cat([axes, -axes]) + torch.tensor(mean, dtype=torch.float64)


def by_scipy(first: torch.Tensor, second: torch.Tensor) -> float:
    a, b = first.numpy(), second.numpy()
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * np.real(sqrtm(s @ t))))


def test_a_set_is_at_no_distance_from_itself():
    for features in (4, 50):
        assert frechet_distance(normal(20, features), normal(20, features)) == pytest.approx(0, abs=1e-10)


def test_a_shift_costs_its_square():
    features = normal(30, 5)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0])
    assert frechet_distance(features, features + shift) == pytest.approx(float(shift.square().sum()))
    assert frechet_distance(features, features + 1e3) == pytest.approx(5e6)


def test_diagonal_covariances():
    """Sum of (s - t)^2 over deviations s and t."""
    first, second = with_covariance([4.0, 1.0, 0.25], [0, 0, 0]), with_covariance([1.0, 9.0, 0.25], [1, 0, 2])
    np.testing.assert_allclose(np.cov(first.numpy(), rowvar=False), np.diag([4, 1, 0.25]), atol=1e-12)
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 4 + 0)


def test_against_sqrtm():
    first = normal(300, 12) @ normal(12, 12, 1)
    second = normal(200, 12, 2) @ normal(12, 12, 3) + 0.3
    assert frechet_distance(first, second) == pytest.approx(by_scipy(first, second), rel=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert frechet_distance(first.float(), second.float()) == pytest.approx(by_scipy(first, second), rel=1e-5)


def test_fewer_clips_than_features():
    """The covariances are singular; in the few directions that there are, the distance is that of full ones."""
    first, second = normal(9, 3), normal(7, 3, 1) * 2
    turned = torch.linalg.qr(normal(40, 3, 2)).Q.mT
    assert frechet_distance(first @ turned, second @ turned) == pytest.approx(by_scipy(first, second), rel=1e-9)
    apart = torch.cat([first, torch.zeros(9, 3)], 1), torch.cat([torch.zeros(7, 3), second], 1)
    expected = sum(float(x.var(0).sum() + x.mean(0).square().sum()) for x in (first, second))
    assert frechet_distance(*apart) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (normal(1, 4), normal(5, 4), r"first has shape \(1, 4\); allowed: \(clips, values\), at least 2 clips"),
        (normal(5, 4), normal(5, 3), "first has 4 features, second 3"),
        (normal(5, 4), normal(5, 4) / 0, "second has values that are no numbers"),
        (normal(5, 4)[0], normal(5, 4), "first has shape"),
    ],
)
def test_features_that_cannot_be(first, second, words):
    with pytest.raises(ValueError, match=words):
        frechet_distance(first, second)


def test_the_inception_score_of_sure_and_unsure_networks():
    sure = 1e3 * torch.eye(6).repeat(3, 1)
    assert inception_score(sure) == pytest.approx(6)
    assert inception_score(sure[[0, 0, 6]]) == pytest.approx(1)
    assert inception_score(torch.zeros(5, 4)) == pytest.approx(1)


def test_the_inception_score_against_numpy():
    logits = normal(50, 7) * 3
    p = np.exp(logits.numpy())
    p /= p.sum(1, keepdims=True)
    entropy = -(p * np.log(p)).sum(1).mean()
    mean = p.mean(0)
    assert inception_score(logits) == pytest.approx(math.exp(-(mean * np.log(mean)).sum() - entropy))
    assert inception_score(logits + 700) == pytest.approx(inception_score(logits))


def test_logits_that_cannot_be():
    with pytest.raises(ValueError, match="logits has shape"):
        inception_score(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="logits has values"):
        inception_score(torch.full((2, 4), torch.nan))
