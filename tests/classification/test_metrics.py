import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from dermsynth.classification.metrics import binary_auroc, metrics

NAMES = ["NV", "MEL", "SK", "BCC", "DF"]


def outcomes(classes, images=200, seed=0, decimals=2):
    """Probabilities rounded so that ties occur, and labels that they predict moderately well."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[label]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.round(decimals), label


def measure(classes, probabilities, label, batch=32):
    collection = metrics(classes)
    for start in range(0, len(label), batch):
        part = slice(start, start + batch)
        collection.update(torch.tensor(probabilities[part]).float(), torch.tensor(label[part]))
    return {name: value.item() for name, value in collection.compute().items()}


@pytest.mark.parametrize("seed", range(3))
def test_two_classes_agree_with_sklearn_on_class_one(seed):
    probabilities, label = outcomes(2, seed=seed)
    predicted = probabilities.argmax(axis=1)
    assert measure(["benign", "malignant"], probabilities, label) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(label, predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(label, predicted),
            "auroc": reference.roc_auc_score(label, probabilities[:, 1].astype(np.float32)),
            "sensitivity": reference.recall_score(label, predicted, pos_label=1),
            "specificity": reference.recall_score(label, predicted, pos_label=0),
        },
        abs=1e-6,
    )


@pytest.mark.parametrize("classes", [3, 5])
def test_more_classes_agree_with_sklearn(classes):
    probabilities, label = outcomes(classes)
    predicted = probabilities.argmax(axis=1)
    names = NAMES[:classes]
    confusion = reference.multilabel_confusion_matrix(label, predicted)
    sensitivity = {f"sensitivity/{n}": c[1, 1] / c[1].sum() for n, c in zip(names, confusion, strict=True)}
    specificity = {f"specificity/{n}": c[0, 0] / c[0].sum() for n, c in zip(names, confusion, strict=True)}
    areas = [
        reference.roc_auc_score(label == c, probabilities[:, c].astype(np.float32)) for c in range(classes)
    ]
    expected = {
        "accuracy": reference.accuracy_score(label, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(label, predicted),
        "auroc": np.mean(areas),
        "sensitivity": np.mean(list(sensitivity.values())),
        "specificity": np.mean(list(specificity.values())),
        **sensitivity,
        **specificity,
    }
    assert measure(names, probabilities, label) == pytest.approx(expected, abs=1e-6)


def test_macro_auroc_is_sklearns_one_vs_rest():
    logits = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    label = np.arange(300) % 4
    probabilities = logits.softmax(dim=1).double()
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    expected = reference.roc_auc_score(label, probabilities.numpy(), multi_class="ovr", average="macro")
    assert measure(NAMES[:4], probabilities.numpy(), label)["auroc"] == pytest.approx(expected, abs=1e-5)


def test_a_class_without_images_is_left_out_of_averages_without_a_warning():
    probabilities, label = outcomes(3)
    keep = label != 2
    probabilities, label = probabilities[keep], label[keep]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(NAMES[:3], probabilities, label)
        predicted = probabilities.argmax(axis=1)
    assert np.isnan(found["sensitivity/SK"])
    recalls = reference.recall_score(label, predicted, labels=[0, 1], average=None)
    assert found["balanced_accuracy"] == found["sensitivity"] == pytest.approx(recalls.mean())
    areas = [reference.roc_auc_score(label == c, probabilities[:, c].astype(np.float32)) for c in (0, 1)]
    assert found["auroc"] == pytest.approx(np.mean(areas))


def test_one_class_alone_leaves_auroc_undefined_without_a_warning():
    probabilities, _ = outcomes(2, images=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure(["benign", "malignant"], probabilities, np.zeros(8, dtype=int))
    assert np.isnan(found["auroc"])
    assert np.isnan(found["sensitivity"])
    assert found["accuracy"] == found["specificity"]


def test_reset_forgets():
    collection = metrics(["benign", "malignant"])
    wrong, right = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    label = torch.tensor([1, 0])
    for probabilities, expected in ((wrong, 0.0), (right, 1.0)):
        collection.update(probabilities, label)
        assert {v.item() for v in collection.compute().values()} == {expected}
        collection.reset()


def test_auroc_counts_ties_half():
    scores, positive = torch.tensor([0.5, 0.5, 0.5, 0.9]), torch.tensor([True, False, False, True])
    assert binary_auroc(scores, positive).item() == 0.75
