import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from dermsynth.classification.metrics import ClassifierMetrics, undefined
from dermsynth.evaluation.measure import measure as of_run
from dermsynth.evaluation.metrics import OVERALL

NAMES = ["NV", "MEL", "SK", "BCC", "DF"]


def outcomes(classes, images=200, seed=0, decimals=2):
    """Probabilities rounded so that ties occur, and labels that they predict moderately well."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[label]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.round(decimals), label


def measure(classes, probabilities, label, batch=32):
    measured = ClassifierMetrics(classes)
    for start in range(0, len(label), batch):
        part = slice(start, start + batch)
        measured.update(torch.tensor(probabilities[part]).float(), torch.tensor(label[part]))
    return {name: value.item() for name, value in measured.compute().items()}


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_they_agree_with_sklearn(classes, seed):
    probabilities, label = outcomes(classes, seed=seed)
    predicted = probabilities.argmax(axis=1)
    names = NAMES[:classes]
    confusion = reference.multilabel_confusion_matrix(label, predicted)
    areas = [reference.roc_auc_score(label == c, probabilities[:, c].astype(np.float32)) for c in range(classes)]
    expected = {
        "accuracy": reference.accuracy_score(label, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(label, predicted),
        "auroc": np.mean(areas),
        **{f"sensitivity/{n}": c[1, 1] / c[1].sum() for n, c in zip(names, confusion, strict=True)},
        **{f"specificity/{n}": c[0, 0] / c[0].sum() for n, c in zip(names, confusion, strict=True)},
    }
    found = measure(names, probabilities, label)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("present", [(0, 1), (1,), (0, 2)])
def test_classes_without_images_are_left_out_of_means(present):
    """Images of others may be taken for them, which must not count as a class of which nothing was found."""
    probabilities, label = outcomes(3)
    chosen = np.isin(label, present)
    probabilities, label = probabilities[chosen], label[chosen]
    found = measure(NAMES[:3], probabilities, label)
    predicted = probabilities.argmax(axis=1)
    recalls = {c: (predicted[label == c] == c).mean() for c in present}
    areas = [reference.roc_auc_score(label == c, probabilities[:, c]) for c in present if len(present) > 1]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(list(recalls.values())))
    assert found["auroc"] == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)
    sensitivities = [found[f"sensitivity/{name}"] for name in NAMES[:3]]
    assert sensitivities == pytest.approx([recalls.get(c, np.nan) for c in range(3)], nan_ok=True)
    nan = {name for name, value in found.items() if np.isnan(value)}
    assert nan == undefined(NAMES[:3], np.bincount(label, minlength=3))


def test_reset_forgets():
    measured = ClassifierMetrics(["benign", "malignant"])
    wrong, right = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[0.1, 0.9], [0.9, 0.1]])
    label = torch.tensor([1, 0])
    for probabilities, expected in ((wrong, 0.0), (right, 1.0)):
        measured.update(probabilities, label)
        found = measured.compute()
        assert {found[name].item() for name in ("accuracy", "auroc", "sensitivity/malignant")} == {expected}
        measured.reset()


def test_what_is_logged_is_what_compare_tables():
    for classes in (2, 3):
        probabilities, label = outcomes(classes)
        single = probabilities.astype(np.float32).astype(np.float64)
        images = np.arange(len(label))
        tabled = of_run(single, label, images, np.ones((1, len(label))), NAMES[:classes])
        logged = measure(NAMES[:classes], probabilities, label)
        for quantity, value in tabled.items():
            name = "/".join(filter(None, quantity))
            assert name not in logged or logged[name] == np.float32(value[0])
        assert {name for name in logged if "/" not in name} == set(OVERALL)
