"""The mixing policies: of how many real and generated images of each class an epoch is composed (policy.py)."""

from typing import Literal

import numpy as np

from dermsynth.data.mixing import dealing
from dermsynth.data.mixing.dealing import Cells, Indices
from dermsynth.data.mixing.policy import Budget, Policy
from dermsynth.errors import InputError


class RealOnly(Policy):
    """Every real image once an epoch: the baseline.

    Args:
        class_balanced: draw the classes equally often, repeating images of the rarer ones, in an epoch of the same
            length.
    """

    def __init__(self, class_balanced: bool = False) -> None:
        self.class_balanced = class_balanced

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        return np.stack([spread(real.sum(), real, self.class_balanced), 0 * generated])


class SyntheticOnly(Policy):
    """Generated images alone, tested on real ones: the classification accuracy score (Ravuri & Vinyals 2019).

    Azizi et al. (2023) judge diffusion models of ImageNet by it.

    Args:
        budget: `additive` shows every generated image once an epoch; `matched` as many as there are real ones.
        class_balanced: draw the classes equally often, repeating images of the rarer ones.
    """

    def __init__(self, budget: Budget = "additive", class_balanced: bool = False) -> None:
        self.budget, self.class_balanced = budget, class_balanced

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        _need_some(generated, "mix: SyntheticOnly")
        return np.stack([0 * real, spread(generated.sum(), generated, self.class_balanced)])


class Ratio(Policy):
    """A given share of generated images in the training set.

    Sagers et al. (2023) find gains up to about ten generated images a real one, a ratio of 0.91; Azizi et al. (2023)
    add growing numbers to ImageNet; Derm-T2IM (Farooq et al. 2024) trains on three generated images a real one, 0.75.

    Args:
        ratio: generated images as a share of all that an epoch shows, from 0 (as `RealOnly`) to 1 (as
            `SyntheticOnly`). If that is more than there are, they repeat, evenly.
        budget: `additive` shows every real image and adds generated ones until they make up the ratio; `matched`
            keeps the epoch at the number of real images and replaces that share of them.
        class_balanced: draw the classes equally often, repeating images of the rarer ones.
    """

    def __init__(self, ratio: float = 0.0, budget: Budget = "additive", class_balanced: bool = False) -> None:
        if not 0 <= ratio <= 1:
            raise InputError(f"mix.ratio: {ratio} is outside [0, 1]. It is the share of generated images.")
        self.ratio, self.budget, self.class_balanced = ratio, budget, class_balanced

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        if self.ratio > 0:
            _need_some(generated, f"mix.ratio: {self.ratio}")
        if self.ratio == 1:
            return SyntheticOnly(class_balanced=self.class_balanced).composition(real, generated)
        added = real.sum() * self.ratio / (1 - self.ratio)
        return np.stack([spread(real.sum(), real, self.class_balanced), spread(added, generated, self.class_balanced)])


class RatioPerClass(Policy):
    """A given share of generated images in each class: more of them where real ones are rare (Ktena et al. 2024).

    Args:
        ratios: generated images as a share of what an epoch shows of a class, one number for each of `data.classes`, in
            their order; 0 leaves a class real, 1 shows generated images of it alone.
        budget: `additive` shows every real image (but of classes at 1) and adds generated ones; `matched` the same in
            proportion in an epoch as long as the real set.
    """

    def __init__(self, ratios: list[float], budget: Budget = "additive") -> None:
        if not all(0 <= ratio <= 1 for ratio in ratios):
            raise InputError(f"mix.ratios: {ratios} must lie in [0, 1]. They are shares of generated images.")
        self.ratios, self.budget = ratios, budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        ratios = _one_a_class(self.ratios, real, "mix.ratios")
        alone = ratios == 1
        odds = ratios / np.where(alone, 1, 1 - ratios)
        # At least one, so that a class of which none was generated is an error and not left out.
        return np.stack([np.where(alone, 0, real), np.where(alone, np.maximum(generated, 1), real * odds)])


class CountPerClass(Policy):
    """Every real image and a fixed number of generated ones of each class.

    Derm-T2IM (Farooq et al. 2024) adds 3,000 images per class.

    Args:
        count: generated images of each class in an epoch; one number, or one for each of `data.classes` in their order.
            If that is more than there are, they repeat, evenly.
        budget: `additive` shows all these; `matched` the same in proportion in an epoch as long as the real set.
    """

    def __init__(self, count: int | list[int], budget: Budget = "additive") -> None:
        if min(count if isinstance(count, list) else [count], default=0) < 0:
            raise InputError(f"mix.count: {count} is below 0. It is how many generated images of a class are added.")
        self.count, self.budget = count, budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        counts = self.count if isinstance(self.count, list) else [self.count] * len(real)
        return np.stack([real, _one_a_class(counts, real, "mix.count")])


class FillUp(Policy):
    """Every real image, and generated ones that fill the rarer classes up (Mariani et al. 2018, BAGAN).

    Args:
        to: images of each class in an epoch: `largest` for as many as the largest class has real ones, or a number. A
            class with more real images than that keeps them all and gets no generated ones.
        budget: `additive` shows all these; `matched` the same in proportion in an epoch as long as the real set.
    """

    def __init__(self, to: Literal["largest"] | int = "largest", budget: Budget = "additive") -> None:
        if to != "largest" and to < 1:
            raise InputError(f"mix.to: {to} is below 1. It is the number of images that a class is filled up to.")
        self.to, self.budget = to, budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        wanted = real.max() if self.to == "largest" else self.to
        return np.stack([real, np.maximum(wanted - real, 0)])


class PerDraw(Policy):
    """Each draw of a real image becomes, with a given probability, one of a generated image of its class.

    As in DA-Fusion (Trabucco et al. 2023). Unlike in the other policies numbers are random: each image of an epoch is
    an independent draw of origin and class, and only which image of that kind comes is dealt evenly.

    Args:
        probability: of a generated image, in `[0, 1)`; 0.5 in DA-Fusion.
        budget: `additive` makes epochs so long that real images are shown as often, on average, as there are; `matched`
            draws as many images as there are real ones.
    """

    def __init__(self, probability: float = 0.5, budget: Budget = "additive") -> None:
        if not 0 <= probability < 1:
            raise InputError(f"mix.probability: {probability} is outside [0, 1). It is that of a generated image.")
        self.probability, self.budget = probability, budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        return np.stack([real, real * self.probability / (1 - self.probability)])

    def _numbers(self, expected: Cells, seed: int, epochs: int) -> Indices:
        return dealing.sampled(expected, epochs, seed)


class SyntheticFirst(Policy):
    """Generated images alone for some epochs, then real ones alone (pre-training in He et al. 2023).

    Every epoch is as long as the real set. Balanced class weights are those of the real images, on which the training
    ends.

    Args:
        epochs: of generated images.
        budget: `additive` shows every generated image `epochs` times, which takes epochs × generated ÷ real epochs of
            that length, rounded up, and is meant to be added to the recipe's steps; `matched` takes `epochs` epochs
            from the real images, and no more steps.
    """

    def __init__(self, epochs: int, budget: Budget = "additive") -> None:
        if epochs < 1:
            raise InputError(f"mix.epochs: {epochs} is below 1. It is how many epochs show generated images.")
        self.epochs, self.budget = epochs, budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """That of the second phase. See `Policy.composition`."""
        _need_some(generated, "mix: SyntheticFirst")
        return np.stack([real, 0 * generated])

    def first_epochs(self, real: int, generated: int) -> int:
        """How many epochs show generated images, given how many images there are."""
        return self.epochs if self.budget == "matched" else -(-self.epochs * generated // real)

    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """See `Policy.order`."""
        first = self.first_epochs(len(real_labels), len(synthetic_labels))
        if epoch < first:
            return SyntheticOnly("matched").order(real_labels, synthetic_labels, seed, epoch)
        return RealOnly().order(real_labels, synthetic_labels, seed, epoch - first)

    def describe(self, real: Cells, generated: Cells) -> str:
        """See `Policy.describe`."""
        first = self.first_epochs(int(real.sum()), int(generated.sum()))
        return (
            f"{first} epochs of {real.sum():.0f} generated images, then real ones; {super().describe(real, generated)}"
        )


class OversampledReal(Policy):
    """The control of another arm: its generated images replaced by repeated real ones of the same classes.

    Epochs are as long, classes as frequent and class weights the same as in that arm. What this control gains too is
    owed to seeing rare classes more often (oversampling: Buda et al. 2018) and not to generated images.

    Args:
        like: the arm's policy. `data.synthetic` must name the arm's sets too where the policy depends on how many
            generated images there are of each class; none is shown.
    """

    def __init__(self, like: Policy) -> None:
        self.like, self.budget = like, like.budget

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        return np.stack([self.like.composition(real, generated).sum(axis=0), 0 * generated])


class PriorPreservation(Policy):
    """Instance and class images in turn, so that every batch of even size holds one half of each.

    As in DreamBooth (Ruiz et al. 2023), an epoch is as long as the larger of the two sets and the smaller one repeats.

    Args:
        class_balanced: draw the classes equally often, repeating images of the rarer ones.
    """

    batch_multiple = 2

    def __init__(self, class_balanced: bool = False) -> None:
        self.class_balanced = class_balanced

    def composition(self, real: Cells, generated: Cells) -> Cells:
        """See `Policy.composition`."""
        _need_some(generated, "mix: PriorPreservation")
        longest = max(real.sum(), generated.sum())
        return np.stack([spread(longest, of, self.class_balanced) for of in (real, generated)])

    def order(self, real_labels: Indices, synthetic_labels: Indices, seed: int, epoch: int) -> Indices:
        """See `Policy.order`."""
        halves = self._chosen(real_labels, synthetic_labels, seed, epoch).reshape(2, -1)
        for place, half in enumerate(halves):
            dealing.shuffle(half, seed, epoch, place)
        return halves.T.reshape(-1)


def spread(total: float, counts: Cells, balanced: bool) -> Cells:
    """`total` images over the classes in proportion to `counts`, or equally over those of which there are any."""
    weights = (counts > 0).astype(np.float64) if balanced else counts
    return total * weights / max(weights.sum(), 1)


def _need_some(generated: Cells, key: str) -> None:
    if not generated.sum():
        raise InputError(f"{key} asks for generated images, but data.synthetic names none of data.classes.")


def _one_a_class(numbers: list[float] | list[int], real: Cells, key: str) -> Cells:
    if len(numbers) != len(real):
        raise InputError(
            f"{key}: {numbers} must be one number for each of the {len(real)} data.classes, in their order."
        )
    return np.array(numbers, dtype=np.float64)
