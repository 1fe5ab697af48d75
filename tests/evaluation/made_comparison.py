"""A comparison of two arms, made without runs."""

from dermsynth.evaluation.comparison import ENSEMBLE, MEAN, Comparison, Result
from dermsynth.evaluation.metrics import quantities


def make(classes=("benign", "malignant"), exact=(0.11, 26, 40), **of_primary):
    """Two arms of two seeds; the numbers on accuracy can be chosen, the rest are the same everywhere."""
    given = {
        "difference": 0.0233, "difference_sd": 0.004, "difference_low": -0.007, "difference_high": 0.053,
        "smallest_difference": 0.043, "test": "paired bootstrap of groups", "p": 0.13, "p_holm": 0.13,
        **of_primary,
    }  # fmt: skip
    seed_differences = given.pop("seed_differences", (0.02, 0.0266))
    results = []
    for arm, value in (("real", 0.8173), ("hybrid", 0.8406)):
        for quantity in quantities(classes):
            differences = given if arm == "hybrid" else {}
            if quantity.name != "accuracy":
                differences = {k: v for k, v in differences.items() if k != "p_holm"}
            results.append(Result(arm, MEAN, *quantity, value=value, sd=0.005, low=0.78, high=0.87, **differences))
            tested = arm == "hybrid" and quantity.name == "accuracy"
            counts = {"only_baseline_correct": exact[1], "only_arm_correct": exact[2]} if tested else {}
            p = exact[0] if tested else None
            results.append(Result(arm, ENSEMBLE, *quantity, value=value, p=p, **counts))
            for seed, difference in zip((1, 2), seed_differences, strict=True):
                difference = difference if arm == "hybrid" else None
                results.append(Result(arm, f"seed {seed}", *quantity, value=value, difference=difference, p=p))
    return Comparison(
        results=tuple(results), arms={"real": 2, "hybrid": 2}, baseline="real", baseline_reason="by its name",
        primary="accuracy", class_counts=dict.fromkeys(classes, 300), n_images=300 * len(classes),
        n_groups=400, n_without_id=0, splits=("test",), resamples=2000, undefined=0,
    )  # fmt: skip
