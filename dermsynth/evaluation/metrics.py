"""The metrics, one object each: training, comparison, tables, plot, CSV and `--primary` read them here. Pure NumPy.

A resample of images is a row of weights: how often each was taken. A formula takes rows of weights, so that the plain
value (all ones) and its bootstrap are one piece of code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class Unit(Enum):
    """How values are written."""

    POINTS = "points"  # in per cent, and differences in percentage points
    SHARE = "share"  # as a fraction of 1


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is measured of a classifier. Use one of its two kinds, which say what the formula takes.

    Args:
        name: in files, flags and logs.
        title: in sentences, tables and plots.
        unit: how its values are written.
        overall: whether it is reported for all classes together, as the mean over them.
        per_class: whether it is reported for each class against the rest.
        leads: whether the text and the plot show it; comparison.csv holds every metric.
        higher_is_better: the direction.
    """

    name: str
    title: str
    unit: Unit
    overall: bool
    per_class: bool
    leads: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class AnswerMetric(Metric):
    """A metric of answers alone, the class of highest probability.

    Args:
        formula: from the weight of the images of each class (second axis) with each answer (third), `[R, C, C]`, to
            the values of the classes `[R, C]`, or of all images `[R, 1]`; NaN where it is not defined.
    """

    formula: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class ScoreMetric(Metric):
    """A metric of scores, the probabilities of one class against the rest; of two classes, of class 1 alone.

    Args:
        formula: from scores `[N]`, which of the images are of the class `[N]`, and weights `[R, N]` to `[R]`; NaN where
            it is not defined.
    """

    formula: Callable[[Floats, Booleans, Floats], Floats]


class Quantity(NamedTuple):
    """What a number is of: a metric's name, and a class where it is of that one against the rest."""

    name: str
    class_name: str = ""


def accuracy(confusion: Floats) -> Floats:
    """Share of all images whose answer is right, `[R, 1]`."""
    return np.trace(confusion, axis1=1, axis2=2)[:, None] / confusion.sum(axis=(1, 2))[:, None]


def sensitivity(confusion: Floats) -> Floats:
    """Share of each class's images that are found, `[R, C]`."""
    return np.diagonal(confusion, axis1=1, axis2=2) / confusion.sum(axis=2)


def specificity(confusion: Floats) -> Floats:
    """Share of each class's other images that are not taken for it, `[R, C]`."""
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    others = confusion.sum(axis=(1, 2))[:, None] - confusion.sum(axis=2)
    return (others - confusion.sum(axis=1) + hits) / others


def auroc(scores: Floats, positive: Booleans, weights: Floats) -> Floats:
    """Area under the ROC curve: P(score of a positive > of a negative) + half the ties, `[R]`.

    The Mann-Whitney form (Hanley & McNeil 1982), every pair counted with the product of its weights.
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


def auprc(scores: Floats, positive: Booleans, weights: Floats) -> Floats:
    """Area under the precision-recall curve as average precision: the mean precision at the positives, `[R]`.

    Precision at an image is that among the images of its score and above, so that ties are one step of the curve; the
    mean by weight is Σ (Rₙ - Rₙ₋₁) Pₙ, without interpolation, which would be too optimistic (Davis & Goadrich 2006).
    Scores that say nothing give the share of the positives. NaN also where no negative was taken, as any scores would
    then give 1.
    """
    of_positives, of_negatives = weights[:, positive], weights[:, ~positive]
    found = _level_or_above(scores[positive], of_positives, scores[positive])
    taken = found + _level_or_above(scores[~positive], of_negatives, scores[positive])
    # Where nothing is taken, the positive itself has no weight.
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    with np.errstate(invalid="ignore"):
        mean = (of_positives * precision).sum(axis=1) / of_positives.sum(axis=1)
    return np.where(of_negatives.any(axis=1), mean, np.nan)


def _level_or_above(scores: Floats, weights: Floats, thresholds: Floats) -> Floats:
    """Weight `[R, T]` of the images of scores `[N]` that have at least each of the thresholds `[T]`."""
    order = np.argsort(-scores, kind="stable")
    above = np.zeros((len(weights), len(scores) + 1))
    np.cumsum(weights[:, order], axis=1, out=above[:, 1:])
    return above[:, np.searchsorted(-scores[order], -thresholds, side="right")]


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        AnswerMetric(
            name="accuracy", title="accuracy", unit=Unit.POINTS, overall=True, per_class=False, formula=accuracy
        ),
        ScoreMetric(name="auroc", title="AUROC", unit=Unit.SHARE, overall=True, per_class=True, formula=auroc),
        ScoreMetric(
            name="auprc", title="AUPRC", unit=Unit.SHARE, overall=True, per_class=True, leads=False, formula=auprc
        ),
        AnswerMetric(
            name="balanced_accuracy",
            title="balanced accuracy",
            unit=Unit.POINTS,
            overall=True,
            per_class=False,
            formula=sensitivity,
        ),
        AnswerMetric(
            name="sensitivity",
            title="sensitivity",
            unit=Unit.POINTS,
            overall=False,
            per_class=True,
            formula=sensitivity,
        ),
        AnswerMetric(
            name="specificity",
            title="specificity",
            unit=Unit.POINTS,
            overall=False,
            per_class=True,
            formula=specificity,
        ),
    )
}
ACCURACY, AUROC = METRICS["accuracy"], METRICS["auroc"]  # those with an exact test of their own

OVERALL = tuple(metric.name for metric in METRICS.values() if metric.overall)
if TYPE_CHECKING:
    Primary = str
else:
    #: The name of a metric that a conclusion may be about: what `--primary` takes.
    Primary = Literal[OVERALL]


def quantities(classes: Sequence[str]) -> tuple[Quantity, ...]:
    """What is reported for these classes: the overall metrics, then those of each class, in the registry's order.

    Of two classes, whose overall scores are those of class 1, only what has no overall value follows, for class 1.
    """
    overall = tuple(Quantity(name) for name in OVERALL)
    of_class = [metric for metric in METRICS.values() if metric.per_class]
    if len(classes) == 2:
        return overall + tuple(Quantity(metric.name, classes[1]) for metric in of_class if not metric.overall)
    return overall + tuple(Quantity(metric.name, class_name) for class_name in classes for metric in of_class)
