"""What is measured of a classifier, with torchmetrics: exact over all images on any number of ranks."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import ClasswiseWrapper, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassStatScores
from torchmetrics.utilities import dim_zero_cat


class Sensitivity(MulticlassStatScores):
    """Share of each class's images that are found, float32 `[C]`; NaN for a class without images."""

    def compute(self) -> Tensor:
        """Of all images since the last reset."""
        hits, _, _, misses, _ = super().compute().unbind(-1)
        return hits / (hits + misses)


class Specificity(MulticlassStatScores):
    """Share of each class's other images that are not taken for it, float32 `[C]`; NaN where there is no other."""

    def compute(self) -> Tensor:
        """Of all images since the last reset."""
        _, alarms, rejections, _, _ = super().compute().unbind(-1)
        return rejections / (rejections + alarms)


class BalancedAccuracy(Sensitivity):
    """Mean sensitivity of the classes that have images."""

    def compute(self) -> Tensor:
        """Of all images since the last reset."""
        return super().compute().nanmean()


class MeanAUROC(MulticlassAUROC):
    """Mean AUROC, one against the rest, of the classes that have images, and others beside them; NaN if none has."""

    def compute(self) -> Tensor:  # type: ignore[override]
        """Of all images since the last reset."""
        label = dim_zero_cat(self.target)
        counts = torch.bincount(label, minlength=self.num_classes)
        with warnings.catch_warnings():
            # Of classes without images, whose area torchmetrics takes for 0.
            warnings.simplefilter("ignore", UserWarning)
            areas = super().compute()
        return areas[(counts > 0) & (counts < len(label))].mean()


def metrics(classes: Sequence[str]) -> MetricCollection:
    """Accuracy, balanced accuracy, AUROC, and each class's sensitivity and specificity, one against the rest.

    They take softmax `[B, C]` and labels int64 `[B]`. Balanced accuracy is the mean recall of the classes; AUROC is the
    mean over classes, which for two classes is the AUROC of either. Classes without images are left out of both.

    Args:
        classes: at least two names, in the order of the outputs.
    """
    count, names = len(classes), list(classes)
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(count, average="micro"),
            "balanced_accuracy": BalancedAccuracy(count, average=None),
            "auroc": MeanAUROC(count, average=None),
            "sensitivity": ClasswiseWrapper(Sensitivity(count, average=None), names, "sensitivity/"),
            "specificity": ClasswiseWrapper(Specificity(count, average=None), names, "specificity/"),
        },
        # Sharing states between metrics makes the wrapped ones warn that they were never updated.
        compute_groups=False,
    )


def undefined(classes: Sequence[str], counts: Sequence[int]) -> set[str]:
    """Names of those of `metrics` that are NaN on so many images of each class."""
    present = [name for name, count in zip(classes, counts, strict=True) if count]
    names = {f"sensitivity/{name}" for name in classes if name not in present}
    return names if len(present) > 1 else names | {"auroc", *(f"specificity/{name}" for name in present)}
