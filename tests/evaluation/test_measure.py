import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score, roc_auc_score

from dermsynth.evaluation import statistics
from dermsynth.evaluation.measure import measure
from dermsynth.evaluation.metrics import Quantity, quantities

CLASSES = ("NV", "MEL", "SK")


def drawn(n=120, n_groups=24, n_classes=3, seed=3):
    """Rounded probabilities (so that there are ties), labels and groups of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(n_classes, size=n, p=np.array([6, 2, 2])[:n_classes] / sum([6, 2, 2][:n_classes]))
    logits = rng.normal(size=(n, n_classes)) + 1.2 * np.eye(n_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups // 2, n - n_groups)])
    return np.round(probabilities, 2), labels, groups


def test_measure_equals_sklearn_on_the_plain_set():
    probabilities, labels, groups = drawn()
    values = measure(probabilities, labels, groups, np.ones((1, groups.max() + 1)), CLASSES)
    decisions = probabilities.argmax(axis=1)
    assert tuple(values) == quantities(CLASSES)
    assert values[Quantity("accuracy")][0] == pytest.approx(accuracy_score(labels, decisions))
    assert values[Quantity("balanced_accuracy")][0] == pytest.approx(balanced_accuracy_score(labels, decisions))
    one_vs_rest = [roc_auc_score(labels == i, probabilities[:, i]) for i in range(3)]
    assert values[Quantity("auroc")][0] == pytest.approx(np.mean(one_vs_rest))
    for index, name in enumerate(CLASSES):
        is_class, said = labels == index, decisions == index
        assert values[Quantity("auroc", name)][0] == pytest.approx(one_vs_rest[index])
        assert values[Quantity("sensitivity", name)][0] == pytest.approx(recall_score(is_class, said))
        assert values[Quantity("specificity", name)][0] == pytest.approx(recall_score(~is_class, ~said))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_bootstrap_equals_a_naive_loop_over_copied_images(n_classes, monkeypatch):
    monkeypatch.setattr("dermsynth.evaluation.measure.CHUNK", 16)
    probabilities, labels, groups = drawn(n_classes=n_classes)
    weights = statistics.resampling_weights(groups.max() + 1, resamples=40, seed=7)  # three chunks
    values = measure(probabilities, labels, groups, weights, CLASSES[:n_classes])
    naive = {"accuracy": [], "balanced_accuracy": [], "auroc": []}
    for row in weights:
        images = np.concatenate(
            [np.flatnonzero(groups == group) for group, times in enumerate(row) for _ in range(int(times))]
        )
        p, y = probabilities[images], labels[images]
        naive["accuracy"].append(accuracy_score(y, p.argmax(axis=1)))
        naive["balanced_accuracy"].append(balanced_accuracy_score(y, p.argmax(axis=1)))
        scored = [1] if n_classes == 2 else range(n_classes)
        naive["auroc"].append(np.mean([roc_auc_score(y == i, p[:, i]) for i in scored]))
    for name, expected in naive.items():
        np.testing.assert_allclose(values[Quantity(name)], expected, rtol=1e-12)
        assert statistics.percentile_interval(values[Quantity(name)]) == pytest.approx(
            tuple(np.percentile(expected, [2.5, 97.5]))
        )
