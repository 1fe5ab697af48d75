import csv
import io
from dataclasses import replace

import pytest

from dermsynth.errors import InputError
from dermsynth.evaluation import report
from dermsynth.evaluation.report import ENSEMBLE, MEAN, Comparison, Row
from dermsynth.evaluation.statistics import Metric, metrics

CLASSES = ("benign", "malignant")


def comparison(classes=CLASSES, **of_primary):
    """Two arms of two seeds; the numbers on accuracy can be chosen, the rest are the same everywhere."""
    given = {
        "difference": 0.0233, "difference_sd": 0.004, "difference_low": -0.007, "difference_high": 0.053,
        "smallest_difference": 0.043, "test": "paired clustered bootstrap", "p": 0.13, "p_holm": 0.13,
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
            counts = {"only_baseline_correct": 26, "only_arm_correct": 40} if tested else {}
            p = 0.11 if tested else None
            rows.append(Row(arm, ENSEMBLE, *metric, value=value, p=p, **counts))
            for seed, difference in zip((1, 2), seed_differences, strict=True):
                difference = difference if arm == "hybrid" else None
                rows.append(Row(arm, f"seed {seed}", *metric, value=value, difference=difference, p=p))
    return Comparison(
        rows=tuple(rows), arms={"real": 2, "hybrid": 2}, baseline="real", baseline_reason="by its name",
        primary="accuracy", class_counts=dict.fromkeys(classes, 300), n_images=300 * len(classes),
        n_groups=400, splits=("test",), resamples=2000, undefined=0,
    )  # fmt: skip


def test_text_says_accuracy_first_as_users_report_it():
    lines = report.text(comparison()).splitlines()
    real = next(line for line in lines if line.startswith("real"))
    hybrid = next(line for line in lines if line.startswith("hybrid"))
    assert real.split()[1:4] == ["81.73", "±", "0.50"]
    assert hybrid.split()[1:4] == ["84.06", "±", "0.50"]
    assert lines[lines.index(real) + 1].split("  ")[1:2] == ["2 seeds"]
    assert "[78.00, 87.00]" in lines[lines.index(real) + 1]
    head = lines[lines.index(real) - 2]
    assert head.split() == ["accuracy", "%", "AUROC", "accuracy", "%", "malignant", "%", "malignant", "%"]


def test_text_gives_counts_majority_mcnemar_power_and_baseline():
    text = " ".join(report.text(comparison()).split())
    assert "Comparison of 2 arms on 600 images of 400 groups (patients or lesions), split test." in text
    assert "benign 300 (50.00%), malignant 300 (50.00%). Answering benign for every image has accuracy 50.00%." in text
    assert "Baseline: real (by its name). Primary metric: accuracy." in text
    assert "exact McNemar p = 0.11 40 images right only in hybrid, 26 only in real; accuracy 84.06%" in text
    assert "By seed: seed 1 p = 0.11, seed 2 p = 0.11." in text
    assert "80% power, two-sided at 5%, before Holm's adjustment: hybrid 4.30 points." in text
    assert "These tests take images as independent" in text
    assert "tend to be too narrow" not in text


def test_text_warns_of_few_groups_undrawn_classes_one_seed_and_empty_classes():
    c = comparison()
    c = replace(
        c,
        n_groups=12,
        undefined=37,
        arms={"real": 2, "hybrid": 1},
        class_counts={"benign": 600, "malignant": 0},
    )
    text = " ".join(report.text(c).split())
    assert "With 12 groups the intervals are rough and tend to be too narrow." in text
    assert "Up to 37 resamples held no image of some class" in text
    assert "An arm here has one seed" in text
    assert "different numbers of seeds" in text
    assert "No image of malignant: what needs one is not defined (–)." in text


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            {},
            "hybrid: no difference in accuracy from real shown "
            "(+2.33 points, 95% interval -0.70 to +5.30, which contains zero).",
        ),
        (
            {"difference_low": 0.001, "p_holm": 0.08},
            "hybrid: no difference in accuracy from real shown (+2.33 points, 95% interval +0.10 to +5.30; "
            "the interval leaves out zero, but after Holm's adjustment for 1 comparison p = 0.080).",
        ),
        (
            {"difference_low": 0.001, "p_holm": 0.03},
            "hybrid: accuracy is higher than real's (+2.33 points, 95% interval +0.10 to +5.30). "
            "All 2 pairs of seeds agree.",
        ),
        (
            {"difference_low": 0.001, "p_holm": 0.03, "seed_differences": (-0.01, 0.0566)},
            "hybrid: accuracy is higher than real's (+2.33 points, 95% interval +0.10 to +5.30). "
            "Only 1 of 2 pairs of seeds agree: it may be the seeds', not the arm's.",
        ),
        (
            {
                "difference": -0.02, "difference_low": -0.04, "difference_high": -0.003, "p_holm": 0.02,
                "seed_differences": (-0.01, -0.03),
            },
            "hybrid: accuracy is lower than real's (-2.00 points, 95% interval -4.00 to -0.30). "
            "All 2 pairs of seeds agree.",
        ),
    ],
)  # fmt: skip
def test_verdict(numbers, expected):
    assert report.verdict(comparison(**numbers), "hybrid") == expected


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
    shown = comparison(classes).headline
    assert [metric.name for metric in shown[:3]] == ["accuracy", "auroc", "balanced_accuracy"]
    assert [tuple(metric) for metric in shown[3:]] == expected


def test_table_has_every_row_as_fractions_and_blanks():
    c = comparison(smallest_difference=float("nan"))
    rows = list(csv.DictReader(io.StringIO(report.table(c))))
    assert len(rows) == len(c.rows)
    first = rows[0]
    assert (first["arm"], first["seeds"], first["metric"]) == ("real", "mean", "accuracy")
    assert (first["value"], first["difference"], first["test"]) == ("0.8173", "", "")
    hybrid = next(r for r in rows if r["arm"] == "hybrid" and r["seeds"] == "mean")
    assert (hybrid["difference_low"], hybrid["p_holm"], hybrid["smallest_difference"]) == (
        "-0.007",
        "0.13",
        "",
    )
    ensemble = next(r for r in rows if r["arm"] == "hybrid" and r["seeds"] == "ensemble")
    assert (ensemble["only_baseline_correct"], ensemble["only_arm_correct"]) == ("26", "40")


def test_plot_shows_each_metric_with_its_interval_and_fills_only_clear_differences():
    figure = report.plot(comparison(difference_low=0.001))
    upper, lower = figure.axes[:5], figure.axes[5:]
    assert [ax.get_title().split("\n")[-1] for ax in upper] == [
        "accuracy %", "AUROC", "accuracy %", "malignant %", "malignant %"
    ]  # fmt: skip
    assert [label.get_text() for label in upper[0].get_yticklabels()] == ["real", "hybrid"]
    assert [label.get_text() for label in lower[0].get_yticklabels()] == ["hybrid"]
    assert [text.get_text() for text in upper[0].texts] == ["81.73", "84.06"]
    interval = next(line for line in upper[0].lines if line.get_color() == report.ARM_COLOUR)
    assert list(interval.get_xdata()) == pytest.approx([78, 87])

    def diamond(axes):
        return next(line for line in axes.lines if line.get_marker() == "D").get_markerfacecolor()

    assert diamond(lower[0]) == report.ARM_COLOUR
    assert diamond(report.plot(comparison()).axes[5]) == "white"


def test_plot_leaves_out_what_is_not_defined():
    c = comparison()
    undefined = tuple(replace(r, value=float("nan")) if r.metric == "auroc" else r for r in c.rows)
    assert not report.plot(replace(c, rows=undefined)).axes[1].texts


def test_out_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file; give a folder"):
        report.write(comparison(), tmp_path / "file")


def test_row_is_found_by_its_class():
    c = comparison(("NV", "MEL", "SK"))
    assert c.row("hybrid", Metric("sensitivity", "SK")).class_name == "SK"
    assert [r.seeds for r in c.seed_rows("hybrid", Metric("accuracy"))] == ["seed 1", "seed 2"]
