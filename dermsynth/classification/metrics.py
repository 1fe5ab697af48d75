"""What is measured of a classifier, with torchmetrics: exact over all images on any number of ranks."""

from collections.abc import Sequence

from torchmetrics import ClasswiseWrapper, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassRecall,
    MulticlassSpecificity,
)


def metrics(classes: Sequence[str]) -> MetricCollection:
    """Accuracy, balanced accuracy, AUROC, and each class's sensitivity and specificity, one against the rest.

    They take softmax `[B, C]` and labels int64 `[B]`. Balanced accuracy is the mean recall of the classes; AUROC is the
    mean over classes, which for two classes is the AUROC of either.

    Args:
        classes: at least two names, in the order of the outputs.
    """
    count, names = len(classes), list(classes)
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(count, average="micro"),
            "balanced_accuracy": MulticlassRecall(count, average="macro"),
            "auroc": MulticlassAUROC(count, average="macro"),
            "sensitivity": ClasswiseWrapper(MulticlassRecall(count, average=None), names, "sensitivity/"),
            "specificity": ClasswiseWrapper(MulticlassSpecificity(count, average=None), names, "specificity/"),
        },
        # Sharing states between metrics makes the wrapped ones warn that they were never updated.
        compute_groups=False,
    )
