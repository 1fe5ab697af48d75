import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from dermsynth.evaluation.metrics import METRICS, auprc, auroc, quantities


@pytest.mark.parametrize("draw", range(5))
def test_auroc_equals_sklearn_with_weights_and_ties(draw):
    rng = np.random.default_rng(draw)
    scores, positive = rng.integers(0, 12, 150) / 11, rng.random(150) < 0.3
    weights = rng.integers(0, 4, (6, 150)).astype(float)
    expected = [roc_auc_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auroc(scores, positive, weights), expected, rtol=1e-12)


def test_auroc_is_nan_where_a_side_is_missing():
    scores, positive = np.array([0.1, 0.9, 0.4]), np.array([False, True, False])
    values = auroc(scores, positive, np.array([[1.0, 0, 1], [0, 1, 0], [1, 1, 0]]))
    assert np.isnan(values[:2]).all()
    assert values[2] == 1


@pytest.mark.parametrize("draw", range(5))
def test_auprc_equals_sklearn_with_weights_and_ties(draw):
    rng = np.random.default_rng(draw)
    scores, positive = rng.integers(0, 12, 150) / 11, rng.random(150) < 0.3
    weights = rng.integers(0, 4, (6, 150)).astype(float)
    weights[0, scores > 0.8] = 0  # nothing of the highest scores
    expected = [average_precision_score(positive, scores, sample_weight=row) for row in weights]
    np.testing.assert_allclose(auprc(scores, positive, weights), expected, rtol=1e-12)


def test_auprc_by_hand_and_where_a_side_is_missing():
    scores, positive = np.array([0.1, 0.9, 0.4, 0.4]), np.array([False, True, False, True])
    # One of one, then two of three at the tie; where the tie's positive counts thrice, four of five.
    weights = np.array([[1.0, 1, 1, 1], [1, 1, 1, 3], [1, 0, 1, 0], [0, 1, 0, 1]])
    found = auprc(scores, positive, weights)
    assert found[:2] == pytest.approx([1 / 2 + 1 / 2 * 2 / 3, 1 / 4 + 3 / 4 * 4 / 5])
    assert np.isnan(found[2:]).all()


def test_of_two_classes_the_second_is_reported_and_of_more_each_one():
    assert [tuple(quantity) for quantity in quantities(("benign", "malignant"))][-2:] == [
        ("sensitivity", "malignant"),
        ("specificity", "malignant"),
    ]
    of_three = quantities(("NV", "MEL", "SK"))
    for metric in METRICS.values():
        reported = [class_name for name, class_name in of_three if name == metric.name]
        assert reported == [""] * metric.overall + ["NV", "MEL", "SK"] * metric.per_class
