from dataclasses import replace

import pytest

from dermsynth.evaluation.metrics import OVERALL, Quantity
from tests.evaluation.made_comparison import make


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("benign", "malignant"), [("sensitivity", "malignant"), ("specificity", "malignant")]),
        (("NV", "MEL", "SK"), [("sensitivity", "MEL"), ("specificity", "MEL")]),
        (("NV", "MEL", "BCC"), [("sensitivity", "MEL"), ("sensitivity", "BCC")]),
        (("NV", "SK", "DF"), []),
    ],
)
def test_headline_watches_the_malignant_classes(classes, expected):
    shown = make(classes).headline
    assert [metric.name for metric in shown[:3]] == ["accuracy", "auroc", "balanced_accuracy"]
    assert [tuple(metric) for metric in shown[3:]] == expected


def test_result_is_found_by_its_class():
    c = make(("NV", "MEL", "SK"))
    assert c.result("hybrid", Quantity("sensitivity", "SK")).class_name == "SK"
    assert [r.seeds for r in c.seed_results("hybrid", Quantity("accuracy"))] == ["seed 1", "seed 2"]


@pytest.mark.parametrize("primary", OVERALL)
def test_headline_always_holds_the_primary_metric_and_never_more_columns(primary):
    shown = replace(make(), primary=primary).headline
    assert Quantity(primary) in shown
    assert len(set(shown)) == len(make().headline)
