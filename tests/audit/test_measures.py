"""Each measure against an independent package or formula."""

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, pdist
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from dermsynth.audit import measures
from dermsynth.audit.irs import learned_share


@pytest.fixture(scope="module")
def sides():
    """300 and 200 vectors of 12 numbers, of two overlapping distributions; half of the real ones lie elsewhere."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)) / 3
    real[:150] += 0.5
    return real, 1.2 * rng.normal(size=(200, 12)) + 0.3


class Identity(torch.nn.Module):
    num_features = 12

    def forward(self, features):
        return features


def test_frechet_is_that_of_torchmetrics(sides):
    metric = FrechetInceptionDistance(feature=Identity(), normalize=False).set_dtype(torch.float64)
    for features, real in zip(sides, (True, False), strict=True):
        metric.update(torch.from_numpy(features), real=real)
    assert measures.frechet(*sides) == pytest.approx(float(metric.compute()), abs=1e-6)


def test_frechet_of_fewer_images_than_numbers(sides):
    real, synthetic = sides[0][:8], sides[1][:9]
    covariances = [np.cov(features, rowvar=False) for features in (real, synthetic)]
    root = sqrtm(covariances[0] @ covariances[1] + 1e-12 * np.eye(12))
    apart = ((real.mean(axis=0) - synthetic.mean(axis=0)) ** 2).sum()
    expected = apart + np.trace(covariances[0] + covariances[1]) - 2 * np.trace(root).real
    assert measures.frechet(real, synthetic) == pytest.approx(expected, abs=1e-3)
    assert measures.frechet(real, real) == pytest.approx(0, abs=1e-9)


def test_the_kernel_distance_is_that_of_torchmetrics(sides):
    real, synthetic = sides[0][:200], sides[1]
    metric = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=200, normalize=False)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(synthetic), real=False)
    assert measures.squared_mmd(real, synthetic) == pytest.approx(float(metric.compute()[0]), abs=1e-6)


def test_the_mean_over_subsets_is_unbiased(sides):
    mean, sd = measures.kernel_distance(*sides, subsets=400, draw=np.random.default_rng(0))
    assert mean == pytest.approx(measures.squared_mmd(*sides), abs=4 * sd / 400**0.5)
    assert sd > 0


@pytest.mark.parametrize("nearest", [1, 5])
def test_neighbourhoods_are_those_of_prdc(sides, nearest, monkeypatch):
    monkeypatch.setattr(measures, "_MEGABYTES", 0.1)  # so that they come in several pieces
    expected = compute_prdc(*sides, nearest_k=nearest)
    assert measures.neighbourhoods(*sides, nearest)._asdict() == pytest.approx(expected, abs=1e-6)
    assert 0.01 < expected["precision"] < 1
    assert 0.01 < expected["coverage"] < 1


def test_diversity_is_the_mean_distance_of_two(sides):
    assert measures.diversity(sides[0]) == pytest.approx(pdist(sides[0]).mean(), abs=1e-6)


def test_retrieval_counts_the_real_images_that_are_nearest(sides):
    real, synthetic = sides
    retrieved = len(set(cdist(synthetic, real).argmin(axis=1)))
    assert measures.retrieval(real, synthetic) == learned_share(retrieved, 200, 300)
    assert measures.retrieval(real, np.repeat(synthetic[:1], 50, axis=0))[0] == pytest.approx(1 / 300)
    assert measures.retrieval(real, real)[0] == 1
