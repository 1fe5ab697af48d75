"""Every metric of one run, under rows of weights. Pure NumPy."""

from collections.abc import Sequence

import numpy as np

from dermsynth.evaluation.metrics import (
    METRICS,
    OVERALL,
    AnswerMetric,
    Floats,
    Integers,
    Quantity,
    ScoreMetric,
    quantities,
)

CHUNK = 256  # resamples at once: bounds the memory of [resamples, images] arrays


def measure(
    probabilities: Floats, labels: Integers, groups: Integers, weights: Floats, classes: Sequence[str]
) -> dict[Quantity, Floats]:
    """All that is reported of a run, under each row of weights; the answer is the class of highest probability.

    Args:
        probabilities: `[N, C]`.
        labels: `[N]`, each in `[0, C)`.
        groups: `[N]`, each in `[0, G)`.
        weights: `[R, G]`; a row of ones gives the plain values.
        classes: the names of the `C` classes.

    Returns:
        `[R]` for each of `quantities(classes)`; NaN where it is not defined, as when a resample lacks a class.
    """
    values = by_class(probabilities, labels, groups, weights)
    found = {Quantity(name): values[name].mean(axis=1) for name in OVERALL}
    for quantity in quantities(classes)[len(found) :]:
        found[quantity] = values[quantity.name][:, classes.index(quantity.class_name)]
    return found


def by_class(probabilities: Floats, labels: Integers, groups: Integers, weights: Floats) -> dict[str, Floats]:
    """Each metric by its name, for every class; the arguments are those of `measure`.

    Returns:
        `[R, C]`; `[R, 1]` for what is of all images or, of two classes, of the scores of class 1.
    """
    n_classes = probabilities.shape[1]
    per_group = np.zeros((weights.shape[1], n_classes * n_classes))
    np.add.at(per_group, (groups, labels * n_classes + probabilities.argmax(axis=1)), 1)
    confusion = (weights @ per_group).reshape(-1, n_classes, n_classes)
    scored = range(1, 2) if n_classes == 2 else range(n_classes)
    values: dict[str, Floats] = {}
    for metric in METRICS.values():
        if isinstance(metric, AnswerMetric):
            with np.errstate(invalid="ignore"):
                values[metric.name] = metric.formula(confusion)
        else:
            values[metric.name] = np.empty((len(scored), len(weights))).T
    for start in range(0, len(weights), CHUNK):
        rows = slice(start, start + CHUNK)
        of_images = weights[rows][:, groups]
        for metric in METRICS.values():
            if isinstance(metric, ScoreMetric):
                for column, index in enumerate(scored):
                    one = metric.formula(probabilities[:, index], labels == index, of_images)
                    values[metric.name][rows, column] = one
    return values
