import csv
import io
from dataclasses import replace

import pytest

from dermsynth.errors import InputError
from dermsynth.evaluation.statistics import Metric
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


CLEAR = {"difference_low": 0.001, "p_holm": 0.03, "exact": (0.02, 20, 40)}
OBSERVED = (
    "hybrid: accuracy was 2.33 points higher than real's in this test set (95% interval +0.10 to +5.30). "
    "That the arms differ is not established: "
)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            {},
            "hybrid: no difference in accuracy from real shown "
            "(+2.33 points, 95% interval -0.70 to +5.30, which contains zero).",
        ),
        (
            {"exact": (0.02, 20, 40)},
            "hybrid: no difference in accuracy from real shown "
            "(+2.33 points, 95% interval -0.70 to +5.30, which contains zero). The exact McNemar test of the "
            "ensembles disagrees with this interval: p = 0.020, 40 images right only in hybrid and 20 only in real.",
        ),
        (CLEAR, "hybrid: accuracy is higher than real's in this test set (+2.33 points, 95% interval +0.10 to +5.30)."),
        (
            {**CLEAR, "exact": (0.11, 26, 40)},
            "hybrid: accuracy is higher than real's in this test set (+2.33 points, 95% interval +0.10 to +5.30). "
            "The exact McNemar test of the ensembles disagrees with this interval: p = 0.11, "
            "40 images right only in hybrid and 26 only in real.",
        ),
        ({**CLEAR, "p_holm": 0.08}, f"{OBSERVED}after Holm's adjustment for 1 comparison p = 0.080."),
        (
            {**CLEAR, "seed_differences": (-0.01, 0.0566)},
            f"{OBSERVED}only 1 of 2 pairs of seeds agree, so it may be the seeds' and not the arm's.",
        ),
        (
            {
                "difference": -0.02, "difference_low": -0.04, "difference_high": -0.003, "p_holm": 0.02,
                "seed_differences": (-0.01, -0.03), "exact": (0.001, 60, 20),
            },
            "hybrid: accuracy is lower than real's in this test set (-2.00 points, 95% interval -4.00 to -0.30).",
        ),
        (
            {
                "difference": -0.02, "difference_low": -0.04, "difference_high": -0.003, "p_holm": 0.02,
                "seed_differences": (-0.01, -0.03), "exact": (0.001, 20, 60),
            },
            "hybrid: accuracy is lower than real's in this test set (-2.00 points, 95% interval -4.00 to -0.30). "
            "The exact McNemar test of the ensembles disagrees with this interval: p = 0.001, "
            "60 images right only in hybrid and 20 only in real.",
        ),
    ],
)  # fmt: skip
def test_verdict(comparison, numbers, expected):
    assert report.verdict(comparison(**numbers), "hybrid") == expected


@pytest.mark.parametrize(
    ("changes", "doubts"),
    [
        ({"n_groups": 29}, "with 29 patients or lesions the interval tends to be too narrow."),
        (
            {"n_images": 20, "n_groups": 20, "n_without_id": 20},
            "with 20 images the interval tends to be too narrow.",
        ),
        ({"arms": {"real": 1, "hybrid": 2}}, "with one seed of real the difference may be the seed's."),
        ({"arms": {"real": 2, "hybrid": 1}}, "with one seed of hybrid the difference may be the seed's."),
        (
            {"n_groups": 12, "arms": {"real": 1, "hybrid": 1}},
            "with 12 patients or lesions the interval tends to be too narrow; "
            "with one seed of real and of hybrid the difference may be the seed's.",
        ),
    ],
)
def test_verdict_of_few_groups_or_one_seed_claims_nothing(comparison, changes, doubts):
    c = comparison(**CLEAR)
    assert " is higher " in report.verdict(replace(c, n_groups=30), "hybrid")
    assert report.verdict(replace(c, **changes), "hybrid") == OBSERVED + doubts


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
    assert "before Holm's adjustment: hybrid not known (see above)." in rest
    rows = [r for r in csv.DictReader(io.StringIO(report.table(c))) if (r["arm"], r["seeds"]) == ("hybrid", "mean")]
    assert {(r["p"], r["p_holm"], r["smallest_difference"]) for r in rows} == {("", "", "")}
    assert all(r["not_established"] in text for r in rows)
    diamond = next(line for line in forest.plot(c).axes[5].lines if line.get_marker() == "D")
    assert diamond.get_markerfacecolor() == "white"
    established = report.table(replace(comparison(**numbers, seed_differences=(-0.06, -0.08)), n_groups=400))
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


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("benign", "malignant"), [("sensitivity", "malignant"), ("specificity", "malignant")]),
        (("NV", "MEL", "SK"), [("sensitivity", "MEL"), ("specificity", "MEL")]),
        (("NV", "MEL", "BCC"), [("sensitivity", "MEL"), ("sensitivity", "BCC")]),
        (("NV", "SK", "DF"), []),
    ],
)
def test_headline_watches_the_malignant_classes(comparison, classes, expected):
    shown = comparison(classes).headline
    assert [metric.name for metric in shown[:3]] == ["accuracy", "auroc", "balanced_accuracy"]
    assert [tuple(metric) for metric in shown[3:]] == expected


def test_table_has_every_row_as_fractions_and_blanks(comparison):
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


def test_out_that_is_a_file_is_refused(tmp_path, comparison):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="this is a file; give a folder"):
        report.write(comparison(), tmp_path / "file")
    with pytest.raises(InputError, match=r"file/out: no folder can be made there \(Not a directory\)"):
        report.write(comparison(), tmp_path / "file" / "out")


def test_row_is_found_by_its_class(comparison):
    c = comparison(("NV", "MEL", "SK"))
    assert c.row("hybrid", Metric("sensitivity", "SK")).class_name == "SK"
    assert [r.seeds for r in c.seed_rows("hybrid", Metric("accuracy"))] == ["seed 1", "seed 2"]
