import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from dermsynth.audit.estimates import Estimate, auroc, clustered, true_positive_rate, wilson
from dermsynth.audit.estimates import weighted_true_positive_rate as weighted_rate


def test_a_share_has_wilsons_interval():
    k, n, z = 7, 23, norm.ppf(0.975)
    found = wilson(k, n)
    for end in (found.low, found.high):  # it solves (p - share)² = z² p (1 - p) / n
        assert (end - k / n) ** 2 == pytest.approx(z**2 * end * (1 - end) / n)
    assert found.low < found.value == k / n < found.high
    assert wilson(0, 5).low == 0
    assert wilson(0, 0) == Estimate(None, None, None)


def scored(seed, n=300, decimals=8):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return np.round(rng.normal(size=n) + positive, decimals), positive, np.arange(n)


@pytest.mark.parametrize("decimals", [8, 1])
@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_area_and_rate_are_sklearns(rate, decimals):
    scores, positive, groups = scored(0, decimals=decimals)
    assert auroc(scores, positive, groups).value == pytest.approx(roc_auc_score(positive, scores))
    false, true, _ = roc_curve(positive, scores, drop_intermediate=False)
    found = true_positive_rate(scores, positive, groups, rate)
    assert found.value == pytest.approx(true[false <= rate].max())
    assert found.low < found.value < found.high


def test_weights_stand_for_repeated_images():
    scores, positive, _ = scored(1, decimals=1)
    times = np.random.default_rng(2).multinomial(300, np.full(300, 1 / 300), size=5)
    found = weighted_rate(scores, positive, times.astype(float), 0.1)
    for value, row in zip(found, times, strict=True):
        false, true, _ = roc_curve(positive.repeat(row), scores.repeat(row), drop_intermediate=False)
        assert value == pytest.approx(true[false <= 0.1].max())


def test_where_nothing_is_defined_nothing_is_said():
    scores, nobody, groups = np.ones(3), np.zeros(3, bool), np.arange(3)
    for found in (auroc(scores, nobody, groups), true_positive_rate(scores, nobody, groups, 0.1)):
        assert found == Estimate(None, None, None)
    assert clustered(lambda weights: weights.sum(axis=1), np.zeros(0, np.int64)) == Estimate(None, None, None)
    alone = auroc(np.arange(3.0), np.arange(3) > 1, np.zeros(3, np.int64))
    assert alone == Estimate(1.0, None, None)


def test_the_interval_is_that_of_drawing_groups():
    """The mean of few groups, whose bootstrap has a known spread."""
    rng = np.random.default_rng(0)
    values, groups = rng.normal(size=40).repeat(5), np.arange(40).repeat(5)
    found = clustered(lambda weights: weights @ values / weights.sum(axis=1), groups)
    half = norm.ppf(0.975) * values[::5].std() / 40**0.5
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
