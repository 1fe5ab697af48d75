"""Resamples of groups, intervals from them, and paired tests on the same images. Pure NumPy and SciPy."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtr, ndtri

from dermsynth.evaluation.metrics import Booleans, Floats

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
POWER = 0.80
MARGIN_LEVEL = 0.90  # of the interval that two one-sided tests at 5 % look at (Schuirmann 1987)


class McNemar(NamedTuple):
    """Images that only the first or only the second got right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def resampling_weights(n_groups: int, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Cluster bootstrap: how often each group is taken when `n_groups` are taken with replacement.

    Drawing whole groups keeps the dependence of images within a patient (the cluster bootstrap of Field &
    Welsh 2007); where each image is a group of its own it is the plain bootstrap. The counts of such a draw
    are multinomial.

    Returns:
        `[resamples, n_groups]`, each row sums to `n_groups`.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(np.float64)


def percentile_interval(samples: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13) over the resamples that are not NaN."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p(differences: Floats) -> float:
    """Two-sided p of no difference: the level at which the percentile interval would just touch zero.

    Twice the smaller share of resamples on either side of zero (interval inversion, Efron & Tibshirani 1993,
    ch. 15), with one added to count and total so that it is never zero (Davison & Hinkley 1997, eq. 4.11).
    NaN where no resample defines the difference.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    fewest = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return float(min(1.0, 2 * (fewest + 1) / (len(defined) + 1)))


def smallest_difference(differences: Floats, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test would show with this power.

    (z of 1 - α/2 + z of the power) × the standard error, here of the paired bootstrap; 2.80
    standard errors at 5 % and 80 % (Bloom 1995, "Minimum detectable effects"). NaN where the
    resamples do not vary.
    """
    defined = differences[~np.isnan(differences)]
    error = float(np.std(defined, ddof=1)) if len(defined) > 1 else 0.0
    return float(ndtri((1 + level) / 2) + ndtri(power)) * error if error > 0 else float("nan")


def mcnemar(first_correct: Booleans, second_correct: Booleans) -> McNemar:
    """McNemar's test of two classifiers on the same images (McNemar 1947), exact.

    Under the null each image that only one of them got right is a fair coin: a two-sided binomial test.

    Args:
        first_correct: `[N]`.
        second_correct: `[N]`, the same images in the same order.
    """
    only_first = int(np.count_nonzero(first_correct & ~second_correct))
    only_second = int(np.count_nonzero(second_correct & ~first_correct))
    tail = float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def delong(first: Floats, second: Floats, positive: Booleans) -> float:
    """Two-sided p of equal AUROC on the same images (DeLong et al. 1988), by mid-ranks (Sun & Xu 2014).

    Args:
        first: scores `[N]`.
        second: scores `[N]`, the same images in the same order.
        positive: `[N]`.

    Returns:
        NaN with fewer than two positives or negatives, or where the areas differ but have no variance.
    """
    from scipy.stats import rankdata  # a second to import, and of a comparison alone

    m, n = int(np.count_nonzero(positive)), int(np.count_nonzero(~positive))
    if min(m, n) < 2:
        return float("nan")
    of_positives, of_negatives = np.empty((2, m)), np.empty((2, n))
    for row, scores in enumerate((first, second)):
        ranks = rankdata(scores)
        of_positives[row] = (ranks[positive] - rankdata(scores[positive])) / n
        of_negatives[row] = 1 - (ranks[~positive] - rankdata(scores[~positive])) / m
    areas = of_positives.mean(axis=1)
    covariance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference = areas[1] - areas[0]
    # Below rounding error the variance is zero: the two rank alike, or both rank perfectly.
    if variance < 1e-15:
        return 1.0 if abs(difference) < 1e-12 else float("nan")
    return float(2 * ndtr(-abs(difference) / np.sqrt(variance)))


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted p values that hold the family-wise error (Holm 1979): step down, monotone, at most 1."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
