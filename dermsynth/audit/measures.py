"""Distances between two sets of feature vectors, and how much of one lies within the other. NumPy, SciPy, scikit-learn.

All take float64 `[N, D]` of real images and `[M, D]` of generated ones, or of other real ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svdvals
from sklearn.metrics import pairwise_distances_chunked

from dermsynth.audit.irs import learned_share

Array = NDArray[np.float64]

NEAREST = 5  # Naeem et al. 2020
SUBSET = 1000  # Bińkowski et al. 2018
_MEGABYTES = 256  # of distances in memory at once


class Neighbourhoods(NamedTuple):
    """How far each set lies within the other, as its own neighbourhoods say.

    Precision and recall are those of Kynkäänniemi et al. 2019, density and coverage those of Naeem et al. 2020.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def frechet(real: Array, synthetic: Array) -> float:
    """Fréchet distance of two normal distributions (Heusel et al. 2017, eq. 6), FID on Inception's features.

    |μ₁ - μ₂|² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½). With Σ = RᵀR the trace of the root is the sum of the singular values of
    R₁R₂ᵀ, which takes no root of a matrix that few images leave singular.
    """
    roots, means = [], []
    for features in (real, synthetic):
        means.append(features.mean(axis=0))
        roots.append(np.asarray(np.linalg.qr((features - means[-1]) / np.sqrt(len(features) - 1), mode="r")))
    traces = sum(float((root**2).sum()) for root in roots)
    apart = float(((means[0] - means[1]) ** 2).sum())
    return apart + traces - 2 * float(svdvals(roots[0] @ roots[1].T).sum())


def kernel_distance(real: Array, synthetic: Array, subsets: int, draw: np.random.Generator) -> tuple[float, float]:
    """KID (Bińkowski et al. 2018): the unbiased squared MMD of a cubic kernel, mean and spread over random subsets.

    A subset is half of the smaller side, at most `SUBSET` images, so that subsets differ.

    Returns:
        The mean, and the standard deviation over the subsets.
    """
    size = min(SUBSET, min(len(real), len(synthetic)) // 2)
    found = [
        squared_mmd(
            real[draw.choice(len(real), size, replace=False)],
            synthetic[draw.choice(len(synthetic), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(found)), float(np.std(found))


def squared_mmd(real: Array, synthetic: Array) -> float:
    """The unbiased estimator (Gretton et al. 2012, eq. 3) with the kernel (x·y / D + 1)³."""

    def kernel(one: Array, other: Array) -> Array:
        return (one @ other.T / one.shape[1] + 1) ** 3

    def apart(features: Array) -> float:
        values, n = kernel(features, features), len(features)
        return float((values.sum() - np.trace(values)) / (n * (n - 1)))

    return apart(real) + apart(synthetic) - 2 * float(kernel(real, synthetic).mean())


def neighbourhoods(real: Array, synthetic: Array, nearest: int = NEAREST) -> Neighbourhoods:
    """Precision, recall, density and coverage; both sides have more than `nearest` images."""
    radii, other_radii = kth_distances(real, nearest), kth_distances(synthetic, nearest)
    within_any, within = np.zeros(len(synthetic), bool), np.zeros(len(synthetic))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)

    def look(distances: Array, start: int) -> None:
        rows = slice(start, start + len(distances))
        inside = distances < radii[rows, None]
        within_any[:] |= inside.any(axis=0)
        within[:] += inside.sum(axis=0)
        recalled[rows] = (distances < other_radii).any(axis=1)
        covered[rows] = inside.any(axis=1)

    _distances(real, synthetic, look)
    return Neighbourhoods(
        float(within_any.mean()), float(recalled.mean()), float(within.mean() / nearest), float(covered.mean())
    )


def kth_distances(features: Array, nearest: int) -> Array:
    """How far the k-th nearest other image of the same set is from each, `[N]`."""
    found = np.empty(len(features))

    def look(distances: Array, start: int) -> None:
        found[start : start + len(distances)] = np.partition(distances, nearest, axis=1)[:, nearest]

    _distances(features, features, look)
    return found


def retrieval(real: Array, synthetic: Array) -> tuple[float, float, float]:
    """IRS∞ with its interval (`irs.learned_share`)."""
    nearest = np.empty(len(synthetic), np.int64)

    def look(distances: Array, start: int) -> None:
        nearest[start : start + len(distances)] = distances.argmin(axis=1)

    _distances(synthetic, real, look)
    return learned_share(len(np.unique(nearest)), len(synthetic), len(real))


def diversity(features: Array) -> float:
    """Mean distance of two different images."""
    total = 0.0

    def look(distances: Array, start: int) -> None:
        nonlocal total
        total += float(distances.sum())

    _distances(features, features, look)
    return total / (len(features) * (len(features) - 1))


def _distances(rows: Array, columns: Array, look: Callable[[Array, int], None]) -> None:
    """Show the Euclidean distances of each row to all columns, as many rows at a time as memory allows."""

    def reduce(distances: Array, start: int) -> None:
        look(distances, start)

    for _ in pairwise_distances_chunked(rows, columns, reduce_func=reduce, working_memory=_MEGABYTES):
        pass
