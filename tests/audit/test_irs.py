"""The image retrieval score against exact probabilities and against draws."""

import numpy as np
import pytest

from dermsynth.audit.irs import learned_share, likeliest, moments


def occupancy(size, queries):
    """Probabilities of 0 to `size` different images among even draws, by one draw after another."""
    chances = np.eye(1, size + 1)[0]
    different = np.arange(size + 1)
    for _ in range(queries):
        again, new = chances * different / size, chances * (size - different) / size
        chances = again + np.concatenate([[0.0], new[:-1]])
    return chances


@pytest.mark.parametrize(("size", "queries"), [(1, 3), (2, 5), (7, 1), (20, 30), (60, 25)])
def test_moments_are_exact(size, queries):
    chances, different = occupancy(size, queries), np.arange(size + 1)
    mean = (chances * different).sum()
    assert moments(size, queries) == pytest.approx((mean, (chances * (different - mean) ** 2).sum()), abs=1e-9)


@pytest.mark.parametrize(("retrieved", "queries"), [(5, 12), (11, 12), (3, 40), (20, 30)])
def test_the_likeliest_size_is_that_of_highest_probability(retrieved, queries):
    sizes = range(retrieved, 120)
    chances = [occupancy(size, queries)[retrieved] for size in sizes]
    assert likeliest(retrieved, queries, 119) == sizes[int(np.argmax(chances))]


def test_all_different_says_that_everything_may_be_learned():
    share, low, high = learned_share(50, 50, 500)
    assert share == high == 1
    assert 0.1 < low < 1


def test_one_image_over_and_over():
    assert learned_share(1, 1000, 500) == pytest.approx((1 / 500,) * 3)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, real, truth, hits = np.random.default_rng(0), 400, 0.5, 0
    for _ in range(300):
        retrieved = len(np.unique(rng.integers(round(real * truth), size=250)))
        _, low, high = learned_share(retrieved, 250, real)
        hits += low <= truth <= high
    assert 0.91 < hits / 300 < 0.99
