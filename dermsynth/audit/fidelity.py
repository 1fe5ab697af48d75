"""Does it look like the real thing? Each measure of the generated images beside the same of real images: the floor.

Every number depends on how many images there are, FID most of all, and on the extractor. So each is measured twice more
with equal numbers of images: the generated ones against half of the real patients, and the other half of the patients
against the same. The latter is the floor: what real images of other patients give.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dermsynth.audit import measures
from dermsynth.audit.features import Features
from dermsynth.audit.measures import NEAREST
from dermsynth.audit.result import Fidelity, FidelityRow
from dermsynth.audit.seen import Seen
from dermsynth.seeds import Purpose, entropy

#: In the order in which they are written.
MEASURES = ("fid", "kid", "precision", "recall", "density", "coverage", "irs", "diversity")
REPEATS = 10
LIMIT = 10_000
SUBSETS = 100
_SUBSETS_OF_HALVES = 10  # the spread that counts is over the halves then
_HALVES = 0  # the place of their random numbers; those of classes follow

Places = NDArray[np.int64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class _Measured:
    """The values of the measures that are defined, the spread of KID, and the interval of IRS."""

    values: dict[str, float] = field(default_factory=dict)
    sd: float | None = None
    interval: tuple[float | None, float | None] = (None, None)


def fidelity(train: Seen, generated: Seen, seed: int) -> Fidelity:
    """All measures, overall and for each class that generated images are of.

    Args:
        train: the train images.
        generated: the generated ones.
        seed: of the halves, of subsets and of what is taken from more than `LIMIT` images.
    """
    real, real_classes = train.features, train.side.classes
    synthetic, synthetic_classes = generated.features, generated.side.classes
    names = ["", *sorted({str(name) for name in synthetic_classes} - {""})]
    halves = [_first_half(train.side.groups, seed, repeat) for repeat in range(REPEATS)]
    rows: list[FidelityRow] = []
    for place, name in enumerate(names, 1):
        ours = np.flatnonzero(real_classes == name) if name else np.arange(len(real))
        theirs = np.flatnonzero(synthetic_classes == name) if name else np.arange(len(synthetic))
        draw = np.random.default_rng(entropy(seed, Purpose.AUDIT, place, REPEATS))
        whole = _measure(real[_some(ours, LIMIT, draw)], synthetic[_some(theirs, LIMIT, draw)], SUBSETS, draw)
        sizes, matched, floors = [], defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
        for repeat, half in enumerate(halves):
            draw = np.random.default_rng(entropy(seed, Purpose.AUDIT, place, repeat))
            against, others = real[_some(ours[half[ours]], LIMIT, draw)], ours[~half[ours]]
            sizes.append(min(len(others), len(theirs), LIMIT))
            for found, of, images in ((matched, synthetic, theirs), (floors, real, others)):
                resampled = of[_some(images, sizes[-1], draw)]
                for measure, value in _measure(against, resampled, _SUBSETS_OF_HALVES, draw).values.items():
                    found[measure].append(value)
        for measure in MEASURES:
            low, high = whole.interval if measure == "irs" else (None, None)
            rows.append(
                FidelityRow(
                    measure=measure,
                    class_name=name,
                    n_real=len(ours),
                    n_synthetic=len(theirs),
                    value=whole.values.get(measure),
                    sd=whole.sd if measure == "kid" else None,
                    low=low,
                    high=high,
                    n_half=float(np.mean(sizes)),
                    matched=_mean(matched[measure]),
                    matched_sd=_sd(matched[measure]),
                    floor=_mean(floors[measure]),
                    floor_sd=_sd(floors[measure]),
                )
            )
    return Fidelity(NEAREST, REPEATS, LIMIT, tuple(rows))


def _measure(real: Features, synthetic: Features, subsets: int, draw: np.random.Generator) -> _Measured:
    """All measures that so many images define."""
    ours, theirs = real.astype(np.float64), synthetic.astype(np.float64)
    values: dict[str, float] = {}
    fewest = min(len(ours), len(theirs))
    sd: float | None = None
    interval: tuple[float | None, float | None] = (None, None)
    if fewest >= 2:
        values["fid"] = measures.frechet(ours, theirs)
    if fewest >= 4:
        values["kid"], sd = measures.kernel_distance(ours, theirs, subsets, draw)
    if fewest > NEAREST:
        values |= measures.neighbourhoods(ours, theirs)._asdict()
    if fewest >= 1:
        values["irs"], low, high = measures.retrieval(ours, theirs)
        interval = (low, high)
    if len(theirs) >= 2:
        values["diversity"] = measures.diversity(theirs)
    return _Measured(values, sd, interval)


def _first_half(groups: Names, seed: int, repeat: int) -> NDArray[np.bool_]:
    """Which images are of the first half of the patients, bool `[N]`: patients at random until half of the images."""
    names, group = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(entropy(seed, Purpose.AUDIT, _HALVES, repeat)).permutation(len(names))
    before = np.cumsum(np.bincount(group)[order]) - np.bincount(group)[order]
    first = np.zeros(len(names), bool)
    first[order[before < len(groups) / 2]] = True
    return first[group]


def _some(places: Places, most: int, draw: np.random.Generator) -> Places:
    return places if len(places) <= most else draw.choice(places, most, replace=False)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _sd(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
