"""Mixing policies: which real and generated images an epoch shows, and in what order.

One idea serves both models. The classifier's hybrid arm is a `Ratio`; DreamBooth's prior preservation is
`PriorPreservation`, real instance images and generated class images in equal parts of every batch. An order depends
on (policy, seed, epoch) alone, never on the number of ranks or workers.
"""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dermsynth.errors import InputError

Indices = NDArray[np.int64]

# What a stream of random numbers is for. Every seed is (run seed, purpose, …) with a purpose of its own, so that no two
# streams coincide.
_REAL, _SYNTHETIC, _SHUFFLE, _BALANCE = range(4)


class Policy(ABC):
    """A rule that turns real and generated records into the order of one epoch.

    Records are numbered through: `0 … R - 1` are the real ones, `R … R + S - 1` the generated ones.
    """

    #: Batches must hold a multiple of this many records for the policy to be exact in each of them.
    batch_multiple = 1

    @abstractmethod
    def counts(self, real: int, synthetic: int) -> tuple[int, int]:
        """How many real and generated records one epoch shows, given how many there are."""

    @abstractmethod
    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """The records of one epoch in the order in which they are shown.

        Args:
            real_labels: class of each real record, `[R]`.
            synthetic_labels: class of each generated record, `[S]`.
            seed: of the run.
            epoch: from 0.

        Returns:
            int64 `[sum(counts(R, S))]`.
        """


class Ratio(Policy):
    """A given share of generated images in the training set.

    Args:
        ratio: generated images as a share of all that an epoch shows, from 0 (real only) to 1 (generated only). If that
            is more than there are, they repeat, evenly.
        budget: `additive` shows every real image and adds generated ones until they make up the ratio; `matched`
            keeps the epoch at the number of real images and replaces that share of them.
        class_balanced: draw the classes equally often, repeating images of the rarer ones.
    """

    def __init__(
        self,
        ratio: float = 0.0,
        budget: Literal["additive", "matched"] = "additive",
        class_balanced: bool = False,
    ) -> None:
        if not 0 <= ratio <= 1:
            raise InputError(f"mix.ratio: {ratio} is outside [0, 1]. It is the share of generated images.")
        self.ratio, self.budget, self.class_balanced = ratio, budget, class_balanced

    def counts(self, real: int, synthetic: int) -> tuple[int, int]:
        """See `Policy.counts`."""
        if self.ratio > 0 and not synthetic:
            raise InputError(f"mix.ratio: {self.ratio} asks for generated images, but data.synthetic names none.")
        if self.ratio == 1:
            return 0, synthetic if self.budget == "additive" else real
        if self.budget == "additive":
            return real, round(real * self.ratio / (1 - self.ratio))
        generated = round(real * self.ratio)
        return real - generated, generated

    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """See `Policy.order`."""
        real, synthetic = self.counts(len(real_labels), len(synthetic_labels))
        chosen = np.concatenate(
            [
                deal(real_labels, real, (seed, _REAL), epoch, self.class_balanced),
                deal(synthetic_labels, synthetic, (seed, _SYNTHETIC), epoch, self.class_balanced) + len(real_labels),
            ]
        )
        return np.random.default_rng((seed, _SHUFFLE, epoch)).permutation(chosen)


class PriorPreservation(Policy):
    """Instance and class images in turn, so that every batch of even size holds one half of each.

    As in DreamBooth (Ruiz et al. 2023), an epoch is as long as the larger of the two sets and the smaller one repeats.

    Args:
        class_balanced: draw the classes equally often, repeating images of the rarer ones.
    """

    batch_multiple = 2

    def __init__(self, class_balanced: bool = False) -> None:
        self.class_balanced = class_balanced

    def counts(self, real: int, synthetic: int) -> tuple[int, int]:
        """See `Policy.counts`."""
        if not synthetic:
            raise InputError("mix: PriorPreservation needs class images, but data.synthetic names none.")
        longest = max(real, synthetic)
        return longest, longest

    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """See `Policy.order`."""
        count, _ = self.counts(len(real_labels), len(synthetic_labels))
        instances = deal(real_labels, count, (seed, _REAL), epoch, self.class_balanced)
        priors = deal(synthetic_labels, count, (seed, _SYNTHETIC), epoch, self.class_balanced)
        return np.stack([instances, priors + len(real_labels)], axis=1).reshape(-1)


def deal(labels: Indices, count: int, seed: tuple[int, ...], epoch: int, class_balanced: bool) -> Indices:
    """`count` indices into `labels`, in random order and as evenly used over the epochs as whole numbers allow.

    Epoch e takes the e-th slice of an endless sequence of shuffled passes over the set (over each class, when
    balanced), so a set smaller than `count` repeats and a larger one is used up before anything comes twice.
    """
    if not class_balanced:
        return _slice_of_passes(len(labels), epoch * count, count, seed)
    classes = np.unique(labels)
    # Slot k of the endless sequence belongs to class k mod C.
    slots = np.arange(epoch * count, (epoch + 1) * count, dtype=np.int64)
    chosen = np.empty(count, dtype=np.int64)
    for turn, label in enumerate(classes):
        mine = slots % len(classes) == turn
        if mine.any():
            first = int(slots[mine][0]) // len(classes)
            members = np.flatnonzero(labels == label)
            chosen[mine] = members[_slice_of_passes(len(members), first, int(mine.sum()), (*seed, int(label)))]
    return np.random.default_rng((seed[0], _BALANCE, *seed[1:], epoch)).permutation(chosen)


def _slice_of_passes(size: int, start: int, count: int, seed: tuple[int, ...]) -> Indices:
    if not count:
        return np.empty(0, dtype=np.int64)
    first, last = start // size, (start + count - 1) // size
    passes = [np.random.default_rng((*seed, number)).permutation(size) for number in range(first, last + 1)]
    offset = start - first * size
    return np.concatenate(passes)[offset : offset + count].astype(np.int64)
