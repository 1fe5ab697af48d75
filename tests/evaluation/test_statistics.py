import numpy as np
import pytest
from scipy.stats import binomtest, norm

from dermsynth.evaluation import statistics
from dermsynth.evaluation.measure import measure
from dermsynth.evaluation.metrics import Quantity


def test_resampling_draws_as_many_groups_as_there_are_and_repeats_itself():
    weights = statistics.resampling_weights(50, resamples=400)
    assert (weights.sum(axis=1) == 50).all()
    assert np.array_equal(weights, statistics.resampling_weights(50, resamples=400))
    assert not np.array_equal(weights, statistics.resampling_weights(50, resamples=400, seed=1))
    # Each group is drawn once on average, with the variance of a multinomial: 1 - 1/50.
    assert weights.mean() == 1
    assert weights.var() == pytest.approx(0.98, rel=0.05)


def test_clustered_interval_covers_where_one_over_images_does_not():
    """Patients whose images are right or wrong together: 95 % intervals must cover the truth."""
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "images": 0}
    for trial in range(100):
        right = np.repeat(rng.random(40) < 0.7, 6)
        probabilities = np.column_stack([~right, right]).astype(float)
        labels = np.ones(240, dtype=np.int64)
        for name, groups in (("groups", np.repeat(np.arange(40), 6)), ("images", np.arange(240))):
            weights = statistics.resampling_weights(groups.max() + 1, resamples=200, seed=trial)
            values = measure(probabilities, labels, groups, weights, ("benign", "malignant"))
            low, high = statistics.percentile_interval(values[Quantity("accuracy")])
            covered[name] += low <= 0.7 <= high
    assert 0.85 <= covered["groups"] / 100 <= 0.99
    assert covered["images"] / 100 < 0.7


def test_class_that_is_not_drawn_leaves_nan_and_the_interval_ignores_it():
    probabilities, labels = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 0])
    weights = np.array([[1.0, 1, 1], [2, 0, 1]])
    values = measure(probabilities, labels, np.arange(3), weights, ("benign", "malignant"))
    assert values[Quantity("accuracy")].tolist() == [1, 1]
    for metric in (Quantity("auroc"), Quantity("balanced_accuracy"), Quantity("sensitivity", "malignant")):
        assert values[metric][0] == 1
        assert np.isnan(values[metric][1])
        assert statistics.percentile_interval(values[metric]) == (1, 1)
    nothing = np.full(5, np.nan)
    assert np.isnan(statistics.percentile_interval(nothing)).all()
    assert np.isnan(statistics.bootstrap_p(nothing))
    assert np.isnan(statistics.smallest_difference(nothing))


def test_bootstrap_p_by_hand_and_in_step_with_the_interval():
    assert statistics.bootstrap_p(np.array([1.0] * 95 + [-1.0] * 4)) == pytest.approx(2 * 5 / 100)
    assert statistics.bootstrap_p(np.ones(1999)) == pytest.approx(2 / 2000)
    assert statistics.bootstrap_p(np.zeros(50)) == 1  # ties count on both sides
    differences = np.random.default_rng(1).normal(1, 1, 1999)
    shifted = differences - np.quantile(differences, 0.025)
    assert statistics.bootstrap_p(shifted - 0.05) > 0.05 > statistics.bootstrap_p(shifted + 0.05)


def test_smallest_difference_is_found_with_the_stated_power():
    differences = np.random.default_rng(0).normal(0, 0.02, 4000)
    smallest = statistics.smallest_difference(differences)
    assert smallest == pytest.approx(2.8016 * differences.std(ddof=1), rel=1e-4)
    z = smallest / differences.std(ddof=1)
    assert norm.sf(norm.ppf(0.975) - z) == pytest.approx(0.80, abs=1e-6)
    assert np.isnan(statistics.smallest_difference(np.zeros(100)))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (3, 3), (1, 9), (12, 4), (40, 26), (700, 610)])
def test_mcnemar_equals_the_binomial_test(b, c):
    first = np.array([True] * b + [False] * c + [True] * 5 + [False] * 2)
    second = np.array([False] * b + [True] * c + [True] * 5 + [False] * 2)
    result = statistics.mcnemar(first, second)
    assert (result.only_first, result.only_second) == (b, c)
    assert result.p == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1)


def test_mcnemar_by_hand():
    # 1 against 5 discordant: 2 × (C(6,0) + C(6,1)) / 2^6 = 14/64.
    result = statistics.mcnemar(np.array([True] + [False] * 5), np.array([False] + [True] * 5))
    assert result.p == pytest.approx(14 / 64)


def slow_delong(first, second, positive):
    """DeLong et al. 1988, equations 3 to 6, pair by pair."""
    components = []
    for scores in (first, second):
        x, y = scores[positive], scores[~positive]
        psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
        components.append((psi.mean(), psi.mean(axis=1), psi.mean(axis=0)))
    (area_1, v10_1, v01_1), (area_2, v10_2, v01_2) = components
    m, n = len(v10_1), len(v01_1)
    s10 = sum((a - area_1 - b + area_2) ** 2 for a, b in zip(v10_1, v10_2, strict=True)) / (m - 1)
    s01 = sum((a - area_1 - b + area_2) ** 2 for a, b in zip(v01_1, v01_2, strict=True)) / (n - 1)
    return 2 * norm.sf(abs(area_1 - area_2) / np.sqrt(s10 / m + s01 / n))


@pytest.mark.parametrize("draw", range(4))
def test_delong_equals_the_pairwise_formula(draw):
    rng = np.random.default_rng(draw)
    positive = rng.random(90) < 0.35
    first = np.round(rng.normal(size=90) + positive, 1)
    second = np.round(0.5 * first + rng.normal(size=90) + 0.5 * positive, 1)
    p = statistics.delong(first, second, positive)
    assert p == pytest.approx(slow_delong(first, second, positive), rel=1e-9)
    assert p == pytest.approx(statistics.delong(second, first, positive))


def test_delong_where_there_is_nothing_to_test():
    scores, positive = np.array([0.1, 0.3, 0.6, 0.8]), np.array([False, False, True, True])
    assert statistics.delong(scores, scores**2, positive) == 1
    assert np.isnan(statistics.delong(scores, -scores, positive))
    assert np.isnan(statistics.delong(scores, scores, np.array([False, False, False, True])))


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04 times 4 3 2 1 gives .02 .03 .06 .04; the last is lifted to .06.
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(statistics.holm([0.04]), [0.04])
