"""Metrics under resampling, and paired tests on the same images. Pure NumPy and SciPy.

A resample of groups is a row of weights: how often each group was drawn. Every metric is computed from
weights, so that the point estimate (all ones) and its bootstrap are one piece of code, one pass over arrays.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, ndtri

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

RESAMPLES = 2000
SEED = 0
LEVEL = 0.95
POWER = 0.80
MARGIN_LEVEL = 0.90  # of the interval that two one-sided tests at 5 % look at (Schuirmann 1987)
CHUNK = 256  # resamples at once: bounds the memory of [resamples, images] arrays


class Metric(NamedTuple):
    """What is measured: a name, and a class where it is measured for one class against the rest."""

    name: str
    class_name: str = ""


class McNemar(NamedTuple):
    """Images that only the first or only the second got right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def metrics(classes: Sequence[str]) -> tuple[Metric, ...]:
    """What `measure` measures for these classes, in its order.

    Two classes: accuracy, AUROC, balanced accuracy, sensitivity and specificity of class 1. More classes:
    AUROC is the mean of one class against the rest, and AUROC, sensitivity and specificity of each follow.
    """
    overall = (Metric("accuracy"), Metric("auroc"), Metric("balanced_accuracy"))
    if len(classes) == 2:
        return (*overall, Metric("sensitivity", classes[1]), Metric("specificity", classes[1]))
    return overall + tuple(
        Metric(name, class_name) for class_name in classes for name in ("auroc", "sensitivity", "specificity")
    )


def resampling_weights(n_groups: int, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Cluster bootstrap: how often each group is drawn when `n_groups` are drawn with replacement.

    Drawing whole groups keeps the dependence of images within a patient (the cluster bootstrap of Field &
    Welsh 2007); where each image is a group of its own it is the plain bootstrap. The counts of such a draw
    are multinomial.

    Returns:
        `[resamples, n_groups]`, each row sums to `n_groups`.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=resamples).astype(np.float64)


def weighted_auroc(scores: Floats, positive: Booleans, weights: Floats) -> Floats:
    """Area under the ROC curve of weighted images: P(score of a positive > of a negative) + half the ties.

    The Mann-Whitney form (Hanley & McNeil 1982), every pair counted with the product of its weights.

    Args:
        scores: `[N]`, higher means positive.
        positive: `[N]`.
        weights: `[R, N]`, one row a resample.

    Returns:
        `[R]`; NaN where a resample holds no positive or no negative.
    """
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    below = np.zeros((len(weights), len(negatives) + 1))
    np.cumsum(weights[:, negatives], axis=1, out=below[:, 1:])
    # Weight of the negatives strictly below each positive, and of those below or level with it.
    strictly = np.searchsorted(scores[negatives], scores[positive], side="left")
    or_level = np.searchsorted(scores[negatives], scores[positive], side="right")
    of_positives = weights[:, positive]
    wins = (of_positives * (below[:, strictly] + below[:, or_level])).sum(axis=1) / 2
    with np.errstate(invalid="ignore"):
        return wins / (of_positives.sum(axis=1) * below[:, -1])


def measure(
    probabilities: Floats, labels: Integers, groups: Integers, weights: Floats, classes: Sequence[str]
) -> dict[Metric, Floats]:
    """All metrics of one run under each row of weights; the decision is the class of highest probability.

    Args:
        probabilities: `[N, C]`.
        labels: `[N]`, each in `[0, C)`.
        groups: `[N]`, each in `[0, G)`.
        weights: `[R, G]`; a row of ones gives the plain metric.
        classes: the names of the `C` classes.

    Returns:
        `[R]` for each of `metrics(classes)`; NaN where it is not defined, as when a class is not drawn.
    """
    n_classes = len(classes)
    per_group = np.zeros((weights.shape[1], n_classes * n_classes))
    np.add.at(per_group, (groups, labels * n_classes + probabilities.argmax(axis=1)), 1)
    confusion = (weights @ per_group).reshape(-1, n_classes, n_classes)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    total, true, decided = confusion.sum(axis=(1, 2)), confusion.sum(axis=2), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        sensitivity = hits / true
        others = total[:, None] - true
        specificity = (others - decided + hits) / others
    scored = range(1, 2) if n_classes == 2 else range(n_classes)
    auroc = np.empty((len(weights), n_classes))
    for start in range(0, len(weights), CHUNK):
        rows = slice(start, start + CHUNK)
        of_images = weights[rows][:, groups]
        for index in scored:
            auroc[rows, index] = weighted_auroc(probabilities[:, index], labels == index, of_images)
    values = {
        Metric("accuracy"): hits.sum(axis=1) / total,
        Metric("auroc"): auroc[:, list(scored)].mean(axis=1),
        Metric("balanced_accuracy"): sensitivity.mean(axis=1),
    }
    for index, name in enumerate(classes):
        values[Metric("auroc", name)] = auroc[:, index]
        values[Metric("sensitivity", name)] = sensitivity[:, index]
        values[Metric("specificity", name)] = specificity[:, index]
    return {metric: values[metric] for metric in metrics(classes)}


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
    m, n = int(np.count_nonzero(positive)), int(np.count_nonzero(~positive))
    if min(m, n) < 2:
        return float("nan")
    of_positives, of_negatives = np.empty((2, m)), np.empty((2, n))
    for row, scores in enumerate((first, second)):
        ranks = _midranks(scores)
        of_positives[row] = (ranks[positive] - _midranks(scores[positive])) / n
        of_negatives[row] = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
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


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; ties share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
