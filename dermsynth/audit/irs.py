"""How much of the real images' variety a generator has learned: the image retrieval score.

Dombrowski et al. 2025 (arXiv 2411.16171): each generated image retrieves the real one nearest to it. If a generator
draws evenly from s of the real images, n draws retrieve k different ones with the probability of the classical
occupancy problem, so that k tells s.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, ndtri

LEVEL = 0.95


def learned_share(retrieved: int, queries: int, real: int) -> tuple[float, float, float]:
    """IRS∞: the share of real images that a generator would retrieve in the end, with its 95 % interval.

    Args:
        retrieved: k, the different real images that are the nearest of some query; from 1 to `queries`.
        queries: n, generated images.
        real: real images; no share is above 1.

    Returns:
        The likeliest share, and the ends of the interval.
    """
    ends = [_size_at(retrieved, queries, real, sign * ndtri((1 + LEVEL) / 2)) for sign in (1, -1)]
    return likeliest(retrieved, queries, real) / real, ends[0] / real, ends[1] / real


def likeliest(retrieved: int, queries: int, most: int) -> int:
    """The s of highest likelihood S(n, k) s! / ((s - k)! sⁿ), at most `most`; the Stirling number S is without s."""
    sizes = np.arange(retrieved, most + 1, dtype=np.float64)
    log_likelihood = gammaln(sizes + 1) - gammaln(sizes - retrieved + 1) - queries * np.log(sizes)
    return retrieved + int(log_likelihood.argmax())


def moments(size: float, queries: int) -> tuple[float, float]:
    """Mean and variance of the different images among n even draws from s (Feller 1968, IV.2)."""
    one = np.exp(queries * np.log1p(-1 / size)) if size > 1 else 0.0
    two = np.exp(queries * np.log1p(-2 / size)) if size > 2 else 0.0
    return size * (1 - one), max(size * one + size * (size - 1) * two - size**2 * one**2, 0.0)


def _size_at(retrieved: int, queries: int, most: int, deviations: float) -> float:
    """The s for which k lies so many standard deviations above its mean, within [k, most]."""

    def excess(size: float) -> float:
        mean, variance = moments(size, queries)
        return retrieved - mean - deviations * variance**0.5

    if excess(retrieved) <= 0:
        return float(retrieved)
    return float(most) if excess(most) >= 0 else float(brentq(excess, retrieved, most))
