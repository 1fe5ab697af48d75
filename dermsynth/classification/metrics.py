"""The metrics of the registry over all images of an epoch, gathered from any number of ranks by torchmetrics."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dermsynth.evaluation.measure import by_class
from dermsynth.evaluation.metrics import METRICS, Floats, Integers


class ClassifierMetrics(Metric):
    """Every metric of the registry, of the images since the last reset.

    An overall metric is the mean of the classes that have images, and goes by its name, as `auroc`; one without an
    overall value goes by class, as `sensitivity/MEL`, and is NaN where the images do not define it. The formulas are
    those of `compare`, so that both say the same of the same images.

    Args:
        classes: at least two names, in the order of the outputs.
    """

    full_state_update = False
    probabilities: list[Tensor]
    label: list[Tensor]

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("label", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, label: Tensor) -> None:
        """Keep softmax `[B, C]` and labels int64 `[B]` of a batch."""
        self.probabilities.append(probabilities.detach())
        self.label.append(label)

    def compute(self) -> dict[str, Tensor]:
        """Float32 scalars by name."""
        probabilities, label = dim_zero_cat(self.probabilities), dim_zero_cat(self.label)
        values = _named(self.classes, probabilities.cpu().double().numpy(), label.cpu().numpy())
        return {name: torch.tensor(value, dtype=torch.float32, device=label.device) for name, value in values.items()}


def undefined(classes: Sequence[str], counts: Sequence[int]) -> set[str]:
    """Names of those of `ClassifierMetrics` that are NaN on so many images of each class."""
    present = np.flatnonzero(counts)
    values = _named(classes, np.eye(len(classes))[present], present)
    return {name for name, value in values.items() if np.isnan(value)}


def _named(classes: Sequence[str], probabilities: Floats, labels: Integers) -> dict[str, float]:
    """Each value by the name that it is logged under."""
    values = by_class(probabilities, labels, np.zeros_like(labels), np.ones((1, 1)))
    named: dict[str, float] = {}
    for metric in METRICS.values():
        of_classes = values[metric.name][0]
        if metric.overall:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # where no class defines it
                named[metric.name] = float(np.nanmean(of_classes))
        else:
            named |= {f"{metric.name}/{name}": float(v) for name, v in zip(classes, of_classes, strict=True)}
    return named
