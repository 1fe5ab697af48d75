"""A measured number with its 95 % interval: shares by Wilson's, areas under the ROC curve by resampling patients."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from dermsynth.evaluation.measure import CHUNK
from dermsynth.evaluation.metrics import Booleans, Floats, Integers
from dermsynth.evaluation.metrics import auroc as weighted_auroc
from dermsynth.evaluation.statistics import LEVEL, percentile_interval, resampling_weights


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; None where nothing defines it.

    Args:
        value: as measured.
        low: lower end of the 95 % interval.
        high: its upper end.
    """

    value: float | None
    low: float | None
    high: float | None


def wilson(count: int, n: int) -> Estimate:
    """A share of independent trials with the interval of Wilson (1927).

    Args:
        count: how many of them.
        n: trials; of none nothing is defined.
    """
    if not n:
        return Estimate(None, None, None)
    interval = binomtest(count, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(count / n, float(interval.low), float(interval.high))


def clustered(statistic: Callable[[Floats], Floats], groups: Integers) -> Estimate:
    """A statistic of weighted images with the percentile interval of its cluster bootstrap.

    Args:
        statistic: weights of N images `[R, N]` -> values `[R]`, NaN where it is not defined.
        groups: of each image, `[N]`, such as its patient; whole groups are resampled.
    """
    if not len(groups):
        return Estimate(None, None, None)
    groups = np.unique(groups, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    value = _defined(statistic(np.ones((1, len(groups))))[0])
    if n_groups < 2:
        return Estimate(value, None, None)
    resampled = resampling_weights(n_groups)
    parts = [statistic(resampled[start : start + CHUNK][:, groups]) for start in range(0, len(resampled), CHUNK)]
    low, high = percentile_interval(np.concatenate(parts))
    return Estimate(value, _defined(low), _defined(high))


def share(hits: Booleans, groups: Integers) -> Estimate:
    """A share of images, several of which may be of one patient.

    Args:
        hits: `[N]`.
        groups: of each image, `[N]`; where each is alone in its own, the interval is Wilson's.
    """
    if len(np.unique(groups)) == len(groups):
        return wilson(int(hits.sum()), len(hits))
    return clustered(lambda weights: (weights @ hits) / weights.sum(axis=1), groups)


def weighted_share(hits: Booleans, weights: Floats, groups: Integers) -> Estimate:
    """A share of images that do not count alike, with a clustered interval.

    Args:
        hits: `[N]`.
        weights: of each image, `[N]`, at least 0.
        groups: of each image, `[N]`.
    """

    def mean(rows: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return ((rows * weights) @ hits) / (rows @ weights)

    return clustered(mean, groups)


def auroc(scores: Floats, positive: Booleans, groups: Integers) -> Estimate:
    """Area under the ROC curve with a clustered interval.

    Args:
        scores: `[N]`, higher means positive.
        positive: `[N]`.
        groups: of each image, `[N]`.
    """
    return clustered(lambda weights: weighted_auroc(scores, positive, weights), groups)


def true_positive_rate(scores: Floats, positive: Booleans, groups: Integers, false_positive_rate: float) -> Estimate:
    """Share of positives above the lowest threshold that no more than this share of negatives exceeds.

    Args:
        scores: `[N]`, higher means positive.
        positive: `[N]`.
        groups: of each image, `[N]`.
        false_positive_rate: the share of negatives, in (0, 1).
    """
    return clustered(
        lambda weights: weighted_true_positive_rate(scores, positive, weights, false_positive_rate), groups
    )


def weighted_true_positive_rate(
    scores: Floats, positive: Booleans, weights: Floats, false_positive_rate: float
) -> Floats:
    """See `true_positive_rate`.

    Args:
        scores: `[N]`.
        positive: `[N]`.
        weights: `[R, N]`, one row a resample.
        false_positive_rate: in (0, 1).

    Returns:
        `[R]`; NaN where a resample holds no positive or no negative.
    """
    negatives, positives = (np.flatnonzero(positive == which) for which in (False, True))
    if not len(negatives) or not len(positives):
        return np.full(len(weights), np.nan)
    negatives = negatives[np.argsort(-scores[negatives], kind="stable")]
    positives = positives[np.argsort(-scores[positives], kind="stable")]
    above = np.cumsum(weights[:, negatives], axis=1)
    allowed = false_positive_rate * above[:, -1:] + 1e-9  # sums of weights are whole numbers but for rounding
    # The first negative that is one too many; nothing that is not above it is called positive.
    threshold = scores[negatives][(above > allowed).argmax(axis=1)]
    called = np.searchsorted(-scores[positives], -threshold, side="left")
    sums = np.cumsum(weights[:, positives], axis=1)
    found = np.where(called > 0, np.take_along_axis(sums, np.maximum(called - 1, 0)[:, None], axis=1)[:, 0], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(above[:, -1] > 0, found / sums[:, -1], np.nan)


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
