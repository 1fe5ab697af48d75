import pytest

from dermsynth.evaluation.comparison import ENSEMBLE, MEAN, Comparison, Row
from dermsynth.evaluation.statistics import metrics


@pytest.fixture
def comparison():
    """Makes a comparison of two arms."""
    return make


def make(classes=("benign", "malignant"), exact=(0.11, 26, 40), **of_primary):
    """Two arms of two seeds; the numbers on accuracy can be chosen, the rest are the same everywhere."""
    given = {
        "difference": 0.0233, "difference_sd": 0.004, "difference_low": -0.007, "difference_high": 0.053,
        "smallest_difference": 0.043, "test": "paired bootstrap of groups", "p": 0.13, "p_holm": 0.13,
        **of_primary,
    }  # fmt: skip
    seed_differences = given.pop("seed_differences", (0.02, 0.0266))
    rows = []
    for arm, value in (("real", 0.8173), ("hybrid", 0.8406)):
        for metric in metrics(classes):
            differences = given if arm == "hybrid" else {}
            if metric.name != "accuracy":
                differences = {k: v for k, v in differences.items() if k != "p_holm"}
            rows.append(Row(arm, MEAN, *metric, value=value, sd=0.005, low=0.78, high=0.87, **differences))
            tested = arm == "hybrid" and metric.name == "accuracy"
            counts = {"only_baseline_correct": exact[1], "only_arm_correct": exact[2]} if tested else {}
            p = exact[0] if tested else None
            rows.append(Row(arm, ENSEMBLE, *metric, value=value, p=p, **counts))
            for seed, difference in zip((1, 2), seed_differences, strict=True):
                difference = difference if arm == "hybrid" else None
                rows.append(Row(arm, f"seed {seed}", *metric, value=value, difference=difference, p=p))
    return Comparison(
        rows=tuple(rows), arms={"real": 2, "hybrid": 2}, baseline="real", baseline_reason="by its name",
        primary="accuracy", class_counts=dict.fromkeys(classes, 300), n_images=300 * len(classes),
        n_groups=400, n_without_id=0, splits=("test",), resamples=2000, undefined=0,
    )  # fmt: skip
