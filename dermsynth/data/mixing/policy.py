"""What every mixing policy does: from the composition of an epoch to the records that it shows, in their order.

One idea serves both models. A policy (those in mixing.py) says of what an epoch is composed: how many real and how many
generated images of each class. The classifier's arms are such compositions; DreamBooth's prior preservation is another,
with real instance images and generated class images in equal parts of every batch. The order depends on (policy, seed,
epoch) alone, never on the number of ranks or workers.
"""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from dermsynth.data.mixing import dealing
from dermsynth.data.mixing.dealing import Cells, Indices, count_cells
from dermsynth.errors import InputError

Budget = Literal["additive", "matched"]


class Policy(ABC):
    """A rule that composes epochs of real and generated images. A policy of your own needs `composition` alone.

    An *additive* epoch holds what the composition says. An epoch at *matched* budget holds the same in proportion, but
    is as long as the real set: as many images and optimizer steps as training on real images alone, so that generated
    ones take the place of real ones. Where a recipe ends by `trainer.max_steps`, as ours do, both take the same steps
    and show the same shares; where it ends by `trainer.max_epochs`, additive epochs take more steps.

    Which images come, and in what order, is random; how many of each origin and class is not: every epoch has what is
    due, or the whole number below or above it, and over the epochs it evens out. Of one origin and class no image comes
    twice before all came once.
    """

    #: Batches must hold a multiple of this many records for the policy to be exact in each of them.
    batch_multiple = 1
    budget: Budget = "additive"

    @abstractmethod
    def composition(self, real: Cells, generated: Cells) -> Cells:
        """Of what an additive epoch is composed.

        Args:
            real: how many real images of each class there are, `[C]`.
            generated: how many generated ones, `[C]`.

        Returns:
            how many of them an epoch shows, `[2, C]`: real, then generated; fractions are meant on average.
        """

    def expected(self, real: Cells, generated: Cells) -> Cells:
        """What an epoch shows on average, at the policy's budget; the sum is every epoch's length.

        Balanced class weights are taken from this. See `composition` for arguments and result.

        Raises:
            InputError: the policy wants images of a kind of which there are none.
        """
        shown = np.array(self.composition(real, generated), dtype=np.float64)
        for origin, place, have, want in (
            ("real", "data.real", real, shown[0]),
            ("generated", "data.synthetic", generated, shown[1]),
        ):
            lacking = np.flatnonzero((want > 0) & (have == 0))
            if len(lacking):
                raise InputError(
                    f"mix: {type(self).__name__} asks for {origin} images of class {lacking[0] + 1} of data.classes, "
                    f"but {place} has none of it. Add some, or leave the class out."
                )
        # Each origin in whole numbers, so that real images whose number is whole already keep it exactly.
        sums = shown.sum(axis=1, keepdims=True)
        shown *= np.round(sums) / np.where(sums, sums, 1)
        return shown * (real.sum() / shown.sum()) if self.budget == "matched" else shown

    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """The records of one epoch in the order in which they are shown; every epoch is equally long.

        Records are numbered through: `0 … R - 1` are the real ones, `R … R + S - 1` the generated ones.

        Args:
            real_labels: class of each real record, `[R]`.
            synthetic_labels: class of each generated record, `[S]`.
            seed: of the run.
            epoch: from 0.

        Returns:
            int64 `[expected(…).sum()]`.
        """
        chosen = self._chosen(real_labels, synthetic_labels, seed, epoch)
        dealing.shuffle(chosen, seed, epoch)
        return chosen

    def describe(self, real: Cells, generated: Cells) -> str:
        """What an epoch shows, in words; classes are in the order of `data.classes`."""
        shown, there = self.expected(real, generated), (real, generated)
        parts = [
            _said(show, have, origin)
            for origin, show, have in zip(("real", "generated"), shown, there, strict=True)
            if show.sum()
        ]
        return f"an epoch: {', and '.join(parts)}"

    def _chosen(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        expected = self.expected(*count_cells(real_labels, synthetic_labels))
        return dealing.records(real_labels, synthetic_labels, self._numbers(expected, seed, epoch + 1), seed)

    def _numbers(self, expected: Cells, seed: int, epochs: int) -> Indices:
        return dealing.rounded(expected, epochs)


def _said(shown: Cells, images: Cells, origin: str) -> str:
    """How many images of an origin an epoch shows, and how often: of each class where these differ."""
    total, there = shown.sum(), images.sum()
    often = shown[images > 0] / images[images > 0]
    if np.ptp(often) > 0.05 * often.max():
        each = ", ".join(f"{times:.2g}" for times in np.divide(shown, images, out=shown * 0, where=images > 0))
        return f"{total:.0f} showings of {there:.0f} {origin} images, of each class {each} times its number"
    if total < there:
        return f"{total:.0f} of {there:.0f} {origin} images"
    times = "once" if total == there else f"{total / there:.2g} times"
    return f"{there:.0f} {origin} images, each shown {times}"
