"""Can real and generated images be told apart? A classifier two-sample test (Lopez-Paz & Oquab 2017) on features.

A logistic regression is fitted on four fifths of the patients and scores the images of the last fifth. How well it does
depends on how many images there are. So it is fitted twice more with equal numbers: on generated images against half of
the real patients, and on the other half of the patients against the same, which is the floor.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermsynth.audit.answers import Told, TwoSample
from dermsynth.audit.estimates import Estimate, clustered
from dermsynth.audit.features import Features
from dermsynth.audit.sides import Side
from dermsynth.evaluation.metrics import Floats, Integers
from dermsynth.evaluation.metrics import auroc as weighted_auroc
from dermsynth.seeds import Purpose, entropy

FOLDS = 5
REPEATS = 3
#: Images per side; of more, so many are taken at random.
LIMIT = 2000
# Inverse strength of the penalty: with more features than images nothing else keeps the fit from learning by heart.
_C = 0.01


@dataclass(frozen=True)
class Sample:
    """Images of one side.

    Args:
        features: `[N, D]`.
        groups: the patient of each, `[N]`; other numbers than on the other side.
        labels: the class of each, `[N]`.
    """

    features: Features
    groups: Integers
    labels: Integers

    def at(self, places: Integers) -> Self:
        """Some of them."""
        return type(self)(self.features[places], self.groups[places], self.labels[places])

    def sampled(self, counts: Integers, draw: np.random.Generator) -> Self:
        """So many of each class."""
        of_class = [np.flatnonzero(self.labels == label) for label in range(len(counts))]
        return self.at(
            np.concatenate([draw.choice(p, n, replace=False) for p, n in zip(of_class, counts, strict=True)])
        )


def two_sample(train: Side, real: Features, generated: Side, synthetic: Features, seed: int) -> TwoSample:
    """The test for all images and for each class that is generated.

    Args:
        train: the real train images.
        real: their features, `[N, D]`.
        generated: the generated images.
        synthetic: their features, `[M, D]`.
        seed: of what is taken at random.
    """
    names = sorted({str(name) for name in generated.classes} - {""})
    ours, made = _sample(train, real, names, 0), _sample(generated, synthetic, names, len(train))

    def of(labels: Sequence[int]) -> Told:
        some, others = (sample.at(np.flatnonzero(np.isin(sample.labels, labels))) for sample in (ours, made))
        return _told(some, others, len(names), seed)

    overall = of(range(len(names)))
    return TwoSample(FOLDS, REPEATS, overall, {name: of([label]) for label, name in enumerate(names)})


def told_apart(first: Sample, second: Sample, seed: int) -> Estimate:
    """The area under the ROC curve of telling the second sample from the first, with a clustered interval.

    Args:
        first: one side.
        second: the other.
        seed: of the folds.
    """
    area = _area(first, second, seed)
    groups = np.concatenate([first.groups, second.groups])
    return clustered(area, groups) if area else Estimate(None, None, None)


def _area(first: Sample, second: Sample, seed: int) -> Callable[[Floats], Floats] | None:
    """The area as a function of the images' weights; None where a side has fewer patients than there are folds.

    Images are ranked within their fold, as the scores of two fits cannot be compared.
    """
    if min(len(np.unique(sample.groups)) for sample in (first, second)) < FOLDS:
        return None
    features, groups, labels = (
        np.concatenate([getattr(sample, name) for sample in (first, second)])
        for name in ("features", "groups", "labels")
    )
    is_second = np.arange(len(features)) >= len(first.features)
    strata = 2 * labels + is_second
    if np.bincount(strata).max() < FOLDS:  # of so few, a fold cannot have its share of each class
        strata = is_second.astype(np.int64)
    scores, places = np.zeros(len(features)), list[Integers]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the ranks change no more long before
        warnings.filterwarnings("ignore", "The least populated class")  # of which some folds then have none
        splits = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        for fitted, scored in splits.split(features, strata, groups):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=_C, class_weight="balanced", max_iter=200))
            model.fit(features[fitted], is_second[fitted])
            scores[scored] = model.decision_function(features[scored])
            places.append(scored)

    def area(weights: Floats) -> Floats:
        areas = np.array([weighted_auroc(scores[p], is_second[p], weights[:, p]) for p in places])
        defined = (~np.isnan(areas)).sum(axis=0)
        return np.where(defined > 0, np.nansum(areas, axis=0) / np.maximum(defined, 1), np.nan)

    return area


def _sample(side: Side, features: Features, names: list[str], first_group: int) -> Sample:
    """The images of these classes."""
    number = {name: label for label, name in enumerate(names)}
    labels = np.array([number.get(str(name), -1) for name in side.classes], dtype=np.int64)
    groups = first_group + np.unique(side.groups, return_inverse=True)[1].astype(np.int64)
    return Sample(features, groups, labels).at(np.flatnonzero(labels >= 0))


def _told(real: Sample, made: Sample, classes: int, seed: int) -> Told:
    """With as many of each class on both sides, so that it is no matter of how many there are of each."""
    draw = np.random.default_rng(entropy(seed, Purpose.AUDIT, FOLDS, LIMIT))
    counts = _counts(classes, real, made)
    n, whole = int(counts.sum()), told_apart(real.sampled(counts, draw), made.sampled(counts, draw), seed)
    sizes, matched, floor = list[int](), list[float](), list[float]()
    for repeat in range(REPEATS):
        patients = draw.permutation(np.unique(real.groups))
        half = np.isin(real.groups, patients[: len(patients) // 2])
        against, others = (real.at(np.flatnonzero(half == which)) for which in (True, False))
        counts = _counts(classes, against, others, made)
        sizes.append(int(counts.sum()))
        for found, sample in ((matched, made), (floor, others)):
            area = _area(against.sampled(counts, draw), sample.sampled(counts, draw), repeat)
            if area:
                found.append(float(area(np.ones((1, 2 * sizes[-1])))[0]))
    return Told(
        n=n,
        auroc=whole,
        n_half=round(float(np.mean(sizes))),
        matched=float(np.mean(matched)) if matched else None,
        floor=float(np.mean(floor)) if floor else None,
        floor_high=max(floor, default=None),
    )


def _counts(classes: int, *samples: Sample) -> Integers:
    """How many of each class all samples have; together no more than `LIMIT`."""
    least = np.min([np.bincount(sample.labels, minlength=classes) for sample in samples], axis=0)
    return (least * min(1.0, LIMIT / max(1, least.sum()))).astype(np.int64)
