"""From how many images of each kind an epoch shows, to the order in which it shows which.

A *cell* is the real, or the generated, images of one class. A policy (policy.py) says how many of each cell an epoch
shows on average; here that becomes whole numbers, those become records, and the records an order. Whatever is random
depends on (seed, epoch) alone.
"""

import numpy as np
from numpy.typing import NDArray

from dermsynth.seeds import Purpose, entropy

Indices = NDArray[np.int64]
#: `[2, C]`: real images of each class, then generated ones.
Cells = NDArray[np.float64]

# The fractional parts of its multiples fill [0, 1) more evenly than those of any other number.
GOLDEN = (5**0.5 - 1) / 2


def count_cells(real_labels: Indices, synthetic_labels: Indices, classes: int = 0) -> Cells:
    """How many records of each origin and class there are, `[2, C]`; C at least `classes`."""
    classes = max(classes, 1 + max(int(labels.max(initial=0)) for labels in (real_labels, synthetic_labels)))
    counts = [np.bincount(labels, minlength=classes) for labels in (real_labels, synthetic_labels)]
    return np.stack(counts).astype(np.float64)


def rounded(expected: Cells, epochs: int) -> Indices:
    """Whole numbers for the first epochs: each next to what is expected, with the same sum in every epoch.

    This is systematic sampling: the cells lie end to end on a line, each gets the marks of a ruler that it covers, and
    the ruler moves by the golden section each epoch, so that over the epochs every cell gets what it is due.

    Args:
        expected: images of each cell in an epoch, `[2, C]`, with a whole sum.
        epochs: how many.

    Returns:
        int64 `[epochs, 2, C]`.
    """
    # Rounding takes away what addition left of whole numbers, such as 2.9999999999.
    ends = np.round(expected.reshape(-1).cumsum(), 6)
    moved = (0.5 + GOLDEN * np.arange(epochs)) % 1
    marks = np.floor(ends + moved[:, None]).astype(np.int64)
    return np.diff(marks, axis=1, prepend=0).reshape(epochs, *expected.shape)


def sampled(expected: Cells, epochs: int, seed: int) -> Indices:
    """Whole numbers for the first epochs as independent draws give them: multinomial. As `rounded` otherwise."""
    generator = np.random.default_rng(entropy(seed, Purpose.DRAW))
    flat = expected.reshape(-1)
    numbers = generator.multinomial(round(flat.sum()), flat / flat.sum(), size=epochs)
    return numbers.reshape(epochs, *expected.shape)


def records(real_labels: Indices, synthetic_labels: Indices, numbers: Indices, seed: int) -> Indices:
    """The records of the last of these epochs, cell by cell, real ones first.

    A cell's records come in an endless sequence of shuffled passes, of which each epoch takes the next stretch: nothing
    comes twice before everything came once, in an epoch and over all of them.

    Args:
        real_labels: class of each real record, `[R]`; they are numbered `0 … R - 1`.
        synthetic_labels: class of each generated record, `[S]`; they are numbered `R … R + S - 1`.
        numbers: images of each cell in this epoch and all before it, `[epochs, 2, C]`.
        seed: of the run.

    Returns:
        int64 `[numbers[-1].sum()]`.
    """
    starts, counts = numbers[:-1].sum(axis=0), numbers[-1]
    chosen = np.empty(counts.sum(), dtype=np.int64)
    end = 0
    for purpose, labels, first in (
        (Purpose.REAL, real_labels, 0),
        (Purpose.SYNTHETIC, synthetic_labels, len(real_labels)),
    ):
        for label in np.flatnonzero(counts[purpose]):
            members = np.flatnonzero(labels == label)
            members += first
            begin, end = end, end + counts[purpose, label]
            _deal(members, int(starts[purpose, label]), chosen[begin:end], (seed, purpose, int(label)))
    return chosen


def shuffle(part: Indices, seed: int, epoch: int, place: int = 0) -> None:
    """Bring the records of an epoch, or of the part of it at this place, into random order, in place."""
    np.random.default_rng(entropy(seed, Purpose.SHUFFLE, place, epoch)).shuffle(part)


def _deal(members: Indices, start: int, out: Indices, stream: tuple[int, Purpose, int]) -> None:
    """Fill `out` with the passes' records from place `start` on.

    Only of a pass that is not whole does it matter which order it has, as the epoch is shuffled afterwards.
    """

    def shuffled(number: int) -> Indices:
        return np.random.default_rng(entropy(*stream, number)).permutation(members)

    number, skipped = divmod(start, len(members))
    head = min(len(out), len(members) - skipped) if skipped else 0
    whole, tail = divmod(len(out) - head, len(members))
    if head:
        out[:head] = shuffled(number)[skipped : skipped + head]
        number += 1
    out[head : len(out) - tail].reshape(whole, len(members))[:] = members
    if tail:
        out[len(out) - tail :] = shuffled(number + whole)[:tail]
