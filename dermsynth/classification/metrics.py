"""What is measured of a classifier: rates from the confusion matrix, and the area under the ROC curve.

Everything is exact over all images on any number of ranks: a metric keeps its state, torchmetrics gathers it.
What is undefined, such as the sensitivity of a class without images, is NaN and left out of averages;
torchmetrics' own classes count it as 0 and warn at every sanity check.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat


def metrics(classes: Sequence[str]) -> MetricCollection:
    """Accuracy, balanced accuracy, AUROC, sensitivity and specificity of softmax `[B, C]` and labels `[B]`.

    Two classes are the binary case: AUROC, sensitivity and specificity are those of class 1. With more, the
    three are averages over classes, one against the rest, and each class has its own `sensitivity/MEL` and
    `specificity/MEL`.

    Args:
        classes: at least two names, in the order of the outputs.
    """
    count = len(classes)
    rates: dict[str, Statistic] = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy}
    if count == 2:
        rates |= {
            "sensitivity": partial(_of_class, sensitivity, 1),
            "specificity": partial(_of_class, specificity, 1),
        }
    else:
        rates |= {"sensitivity": partial(_mean, sensitivity), "specificity": partial(_mean, specificity)}
        for index, name in enumerate(classes):
            rates[f"sensitivity/{name}"] = partial(_of_class, sensitivity, index)
            rates[f"specificity/{name}"] = partial(_of_class, specificity, index)
    collection: dict[str, Metric | MetricCollection] = {"auroc": Auroc(count)}
    collection |= {name: ConfusionRate(count, statistic) for name, statistic in rates.items()}
    return MetricCollection(collection)


Statistic = Callable[[Tensor], Tensor]


def accuracy(confusion: Tensor) -> Tensor:
    """Part of all images on the diagonal of a confusion matrix `[true, predicted]`."""
    return confusion.diagonal().sum() / confusion.sum()


def sensitivity(confusion: Tensor) -> Tensor:
    """Recall of each class, `[C]`: TP / (TP + FN); NaN for a class without images."""
    return confusion.diagonal() / confusion.sum(dim=1)


def specificity(confusion: Tensor) -> Tensor:
    """TN / (TN + FP) of each class against the rest, `[C]`; NaN where every image is of that class."""
    negatives = confusion.sum() - confusion.sum(dim=1)
    false_positives = confusion.sum(dim=0) - confusion.diagonal()
    return (negatives - false_positives) / negatives


def balanced_accuracy(confusion: Tensor) -> Tensor:
    """Mean recall over the classes that have images."""
    return sensitivity(confusion).nanmean()


def binary_auroc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve as the Mann-Whitney statistic, ties counted half (Hanley & McNeil 1982).

    Args:
        scores: `[N]`, higher is more positive.
        positive: bool `[N]`.

    Returns:
        float64 scalar; NaN unless there are images on both sides.
    """
    _, rank, ties = torch.unique(scores, return_inverse=True, return_counts=True)
    midranks = ties.cumsum(0).double() - (ties.double() - 1) / 2
    n_positive = positive.sum()
    n_negative = len(positive) - n_positive
    rank_sum = midranks[rank][positive].sum()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


class ConfusionRate(Metric):
    """One number read off the confusion matrix; MetricCollection lets all of them share one matrix.

    Args:
        num_classes: size C of the matrix.
        statistic: from the matrix `[true, predicted]` to a scalar.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int, statistic: Statistic, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.statistic = statistic
        self.add_state(
            "confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum"
        )

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Count a batch: probabilities `[B, C]`, labels int64 `[B]`."""
        size = len(self.confusion)
        cells = label * size + probabilities.argmax(dim=1)
        self.confusion += torch.bincount(cells, minlength=size * size).reshape(size, size)

    def compute(self) -> Tensor:
        """The statistic of all counts so far, float32."""
        return self.statistic(self.confusion).float()


class Auroc(Metric):
    """AUROC of class 1 for two classes, else the mean over classes of one against the rest (Fawcett 2006).

    Args:
        num_classes: number C of columns of the probabilities.
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positive_classes = [1] if num_classes == 2 else list(range(num_classes))
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Keep a batch: probabilities `[B, C]`, labels int64 `[B]`."""
        self.probabilities.append(probabilities.detach())
        self.labels.append(label)

    def compute(self) -> Tensor:
        """The mean over the classes that have images on both sides, float32."""
        probabilities, labels = dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)
        areas = [binary_auroc(probabilities[:, c], labels == c) for c in self.positive_classes]
        return torch.stack(areas).nanmean().float()


def _of_class(statistic: Statistic, index: int, confusion: Tensor) -> Tensor:
    return statistic(confusion)[index]


def _mean(statistic: Statistic, confusion: Tensor) -> Tensor:
    return statistic(confusion).nanmean()
