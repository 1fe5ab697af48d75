import csv
import io
from dataclasses import replace

import pytest

from dermsynth.report import csv_table
from dermsynth.report import figures as forest
from dermsynth.report import text as report


def test_text_says_accuracy_first_as_users_report_it(comparison):
    lines = report.text(comparison()).splitlines()
    real = next(line for line in lines if line.startswith("real"))
    hybrid = next(line for line in lines if line.startswith("hybrid"))
    assert real.split()[1:4] == ["81.73", "±", "0.50"]
    assert hybrid.split()[1:4] == ["84.06", "±", "0.50"]
    assert lines[lines.index(real) + 1].split("  ")[1:2] == ["2 seeds"]
    assert "[78.00, 87.00]" in lines[lines.index(real) + 1]
    head = lines[lines.index(real) - 2]
    assert head.split() == ["accuracy", "%", "AUROC", "accuracy", "%", "malignant", "%", "malignant", "%"]


def test_text_gives_counts_majority_mcnemar_power_and_baseline(comparison):
    text = " ".join(report.text(comparison()).split())
    assert "Comparison of 2 arms on 600 images of 400 patients or lesions, split test." in text
    assert "benign 300 (50.00%), malignant 300 (50.00%). Answering benign for every image has accuracy 50.00%." in text
    assert "Baseline: real (by its name). Primary metric: accuracy." in text
    assert "exact McNemar p = 0.11 40 images right only in hybrid, 26 only in real; accuracy 84.06%" in text
    assert "By seed: seed 1 p = 0.11, seed 2 p = 0.11." in text
    assert "80% power, two-sided at 5%, before Holm's adjustment: hybrid 4.30 points." in text
    assert "These tests take images as independent" in text
    assert "tend to be too narrow" not in text


def test_text_warns_of_few_groups_undrawn_classes_one_seed_and_empty_classes(comparison):
    c = comparison()
    c = replace(
        c,
        n_groups=12,
        undefined=37,
        arms={"real": 2, "hybrid": 1},
        class_counts={"benign": 600, "malignant": 0},
    )
    text = " ".join(report.text(c).split())
    assert "With 12 patients or lesions the intervals are rough and tend to be too narrow." in text
    assert "Up to 37 resamples held no image of some class" in text
    assert "An arm here has one seed" in text
    assert "different numbers of seeds" in text
    assert "With 12 patients or lesions that error tends to be too small, and so is this." in text
    assert "No image of malignant: what needs one is not defined (–)." in text


@pytest.mark.parametrize("changes", [{}, {"arms": {"real": 1, "hybrid": 2}}, {"n_groups": 12}])
def test_no_line_says_more_than_the_conclusion(comparison, changes):
    """A p from the test images alone, beside seeds of opposite sign, one seed, or few patients."""
    seeds = {} if changes else {"seed_differences": (-0.21, 0.07)}
    numbers = {"difference": -0.0719, "difference_low": -0.1, "difference_high": -0.04, "p": 0.0009, "p_holm": 0.0009}
    c = replace(comparison(**numbers, **seeds), **changes)
    text = " ".join(report.text(c).split())
    table, rest = text.split("Tests on the same images")
    assert "p < 0.001" not in table
    assert "Holm's adjustment for 1 comparison on accuracy: hybrid not established." in table
    assert '"not established" stands for a p below 0.05' in table
    assert "before Holm's adjustment: hybrid not known (see above)." in rest
    rows = [r for r in csv.DictReader(io.StringIO(csv_table.table(c))) if (r["arm"], r["seeds"]) == ("hybrid", "mean")]
    assert {(r["p"], r["p_holm"], r["smallest_difference"]) for r in rows} == {("", "", "")}
    assert all(r["not_established"] in text for r in rows)
    diamond = next(line for line in forest.plot(c).axes[5].lines if line.get_marker() == "D")
    assert diamond.get_markerfacecolor() == "white"
    assert "not established" not in report.text(comparison())
    established = csv_table.table(replace(comparison(**numbers, seed_differences=(-0.06, -0.08)), n_groups=400))
    assert {r["not_established"] for r in csv.DictReader(io.StringIO(established))} == {""}


def test_text_of_images_without_ids_names_no_patients(comparison):
    c = replace(comparison(), n_groups=600, n_without_id=600)
    text = " ".join(report.text(c).split())
    assert "Comparison of 2 arms on 600 images, split test." in text
    assert "There are no patient or lesion ids: images are taken as independent." in text
    assert "by drawing images with replacement" in text
    assert "the choice of test images for these trained models" in text
    assert text.count("patient") == text.count("lesion") == 1
    assert "group" not in text
    text = " ".join(report.text(replace(c, n_groups=595)).split())
    assert "images are taken as independent but for copies of one photograph." in text
    assert "some photographs have copies here" in text
    some = " ".join(report.text(replace(c, n_groups=500, n_without_id=450)).split())
    assert "on 600 images of 500 patients or lesions" in some
    assert "Of 450 images no patient or lesion is known: each is taken as a patient of its own." in some
    assert "by drawing whole patients or lesions with replacement" in some
