from dataclasses import replace

import pytest

from dermsynth.evaluation.metrics import METRICS
from dermsynth.report import findings
from dermsynth.report.figures import plot
from dermsynth.report.findings import FOREST_PLOT, Certainty


def verdict(c):
    return " ".join(finding.sentence for finding in findings.of_arm(c, "hybrid"))


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
    assert verdict(comparison(**numbers)) == expected


@pytest.mark.parametrize(
    ("sign", "said"),
    [(1, "accuracy is higher, which is worse, than"), (-1, "accuracy is lower, which is better, than")],
)
def test_of_a_metric_whose_lower_values_are_better_the_verdict_says_so(comparison, monkeypatch, sign, said):
    monkeypatch.setitem(METRICS, "accuracy", replace(METRICS["accuracy"], higher_is_better=False))
    ends = dict(zip(("difference_low", "difference_high"), sorted((sign * 0.001, sign * 0.053)), strict=True))
    seeds = (sign * 0.02, sign * 0.0266)
    c = comparison(**ends, difference=sign * 0.0233, seed_differences=seeds, p_holm=0.03)
    assert f"hybrid: {said} real's in this test set" in verdict(c)
    assert "Lower is better: accuracy." in plot(c).get_supxlabel()


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
    assert " is higher " in verdict(replace(c, n_groups=30))
    assert verdict(replace(c, **changes)) == OBSERVED + doubts


@pytest.mark.parametrize(
    ("numbers", "changes", "certainties"),
    [
        ({}, {}, [Certainty.NOT_SHOWN]),
        (CLEAR, {}, [Certainty.SHOWN]),
        ({**CLEAR, "p_holm": 0.08}, {}, [Certainty.NOT_ESTABLISHED]),
        ({**CLEAR, "exact": (0.11, 26, 40)}, {}, [Certainty.SHOWN, Certainty.KNOWN]),
        ({**CLEAR, "difference_low_90": 0.002}, {"margin": 0.02}, [Certainty.SHOWN, Certainty.SHOWN]),
        ({**CLEAR, "difference_low_90": -0.03}, {"margin": 0.02}, [Certainty.SHOWN, Certainty.NOT_SHOWN]),
        (
            {**CLEAR, "difference_low_90": 0.002},
            {"margin": 0.02, "arms": {"real": 1, "hybrid": 2}},
            [Certainty.NOT_ESTABLISHED, Certainty.NOT_ESTABLISHED],
        ),
        (CLEAR, {"without_control": ("hybrid",)}, [Certainty.SHOWN, Certainty.KNOWN]),
    ],
)
def test_each_sentence_says_how_sure_it_is(comparison, numbers, changes, certainties):
    found = list(findings.of_arm(replace(comparison(**numbers), **changes), "hybrid"))
    assert [finding.certainty for finding in found] == certainties
    assert found[0].figure == FOREST_PLOT
    assert found[0].sentence.startswith("hybrid: ")


@pytest.mark.parametrize(
    ("benign", "said"),
    [
        (490, None),
        (491, "Less accurate in this test set than answering benign for every image, which has accuracy 81.83%: real"),
        (510, "No arm is as accurate in this test set as answering benign for every image, which has accuracy 85.00%:"),
    ],
)
def test_arms_that_the_commonest_answer_would_beat_are_named(comparison, benign, said):
    c = replace(comparison(), class_counts={"benign": benign, "malignant": 600 - benign})
    found = list(findings.below_commonest(c))
    shown = findings.sections(c)[0].paragraphs
    assert len(shown) == len(c.others) + len(found)
    if said is None:
        assert not found
    else:
        assert found[0].sentence.startswith(said)
        assert ("hybrid 84.06%" in found[0].sentence) == (benign == 510)
