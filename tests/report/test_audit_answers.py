from dataclasses import replace

import pytest

from dermsynth.audit.answers import (
    Agreement,
    Artefacts,
    Attack,
    Kappa,
    Labels,
    Membership,
    Occurrence,
    Reader,
    Readings,
    Told,
    TwoSample,
)
from dermsynth.audit.estimates import Estimate
from dermsynth.audit.result import AuditResult
from dermsynth.report.audit_figures import membership_curve
from dermsynth.report.audit_text import text

NOTHING = Estimate(None, None, None)


def about(value, half=0.05):
    return Estimate(value, value - half, value + half)


@pytest.fixture
def asked():
    """An audit of which these questions were asked, all with good news."""
    attack = Attack(200, 150, 90, about(0.51), about(0.02, 0.015), about(0.55, 0.06), about(0.5))
    agreed = Agreement(60, about(0.9), 40, about(0.92), {"NV": 54, "MEL": 6})
    told = Told(100, about(0.52), 50, 0.51, 0.5, 0.54)
    return AuditResult(
        real="real",
        synthetic=("made",),
        features="autoencoder of tiny",
        label_by="diagnosis",
        seed=0,
        n_train=200,
        n_held_out=150,
        n_synthetic=100,
        membership=(Membership("run/last.ckpt", 500, "tiny", 0, attack, {"NV": attack, "MEL": attack}),),
        labels=Labels("real-seed0", 0, agreed, {"NV": agreed, "MEL": agreed}),
        two_sample=TwoSample(5, 3, told, {"NV": told}),
        artefacts=Artefacts(64, ("ruler",), (Occurrence("hair", "", 100, about(0.3), 200, about(0.33)),)),
        readings=Readings(
            "1234abcd",
            20,
            about(0.55, 0.1),
            (Reader("ann", 20, about(0.55, 0.2), about(0.5), about(0.6), 4.5, None),),
            (Kappa("ann", "bob", 20, 0.31), Kappa("ann", "tim", 20, None)),
        ),
    )


def test_lines_are_short_and_nothing_is_called_anonymous(asked):
    said = text(asked)
    assert max(map(len, said.splitlines())) <= 100
    assert "anonym" not in said.lower()
    for question in (
        "Was this patient in the training set?",
        "Does it show what its label says?",
        "Can it be told from the real thing? On autoencoder of tiny",
        "Are artefacts as frequent as among real images?",
        "Can readers tell it from the real thing?",
    ):
        assert question in said


def test_good_news_is_said_with_its_limits(asked):
    said = " ".join(text(asked).split())
    assert "not told from held-out ones beyond chance" in said
    assert "not that there is nothing to find" in said
    assert "no better than real ones of other patients" in said
    assert "In none do the two intervals lie apart" in said
    assert "That they can tell was not shown" in said
    assert "Too fine to be seen at this size: ruler" in said
    assert "kappa of ann and bob on 20 pictures: 0.31" in said
    assert "kappa of ann and tim on 20 pictures: is not defined" in said
    assert "say little" not in said


def test_bad_news_is_said(asked):
    (test,) = asked.membership
    leaking = replace(test, overall=replace(test.overall, auroc=about(0.8), held_out=60), known_to_base=120)
    apart = replace(asked.two_sample, overall=replace(asked.two_sample.overall, matched=0.9))
    wrong = replace(asked.labels.classes["MEL"], agreement=about(0.4), n=12)
    less = Occurrence("ink or sticker", "", 100, about(0.05, 0.01), 200, about(0.2))
    more = Occurrence("frame", "", 100, about(0.4), 200, about(0.1))
    bad = replace(
        asked,
        membership=(leaking,),
        two_sample=apart,
        labels=replace(asked.labels, left_out=7, classes={**asked.labels.classes, "MEL": wrong}),
        artefacts=replace(asked.artefacts, rows=(less, more)),
        readings=replace(asked.readings, accuracy=about(0.7, 0.1)),
    )
    said = " ".join(text(bad).split())
    assert "Train images are told from those of 90 held-out patients or lesions beyond chance" in said
    assert "The base itself was fitted on 120 of the train images" in said
    assert "fewer than 100 held-out images" in said
    assert "told from real ones better than real ones of other patients are" in said
    assert "Less often than with real images: MEL. Fewer than 20 images say little: MEL." in said
    assert "7 generated images of other classes than its own are left out" in said
    assert "Rarer than among real images: ink or sticker. More frequent than among real images: frame." in said
    assert "They tell generated from real pictures beyond chance" in said


def test_what_is_not_defined_is_a_dash(asked):
    (test,) = asked.membership
    none = replace(test.overall, auroc=NOTHING, found=NOTHING, by_loss=NOTHING, by_base=NOTHING, held_out=0)
    empty = Told(3, NOTHING, 1, None, None, None)
    said = text(replace(asked, membership=(replace(test, overall=none),), two_sample=TwoSample(5, 3, empty, {})))
    assert "–" in next(line for line in said.splitlines() if line.startswith("  all "))
    assert "Too few images for a floor" in said


def test_the_result_is_read_as_it_was_written(asked):
    assert AuditResult.from_dict(asked.to_dict()) == asked


def test_the_curve_shows_each_class_over_steps_and_the_interval_of_all(asked):
    (last,) = asked.membership
    first = replace(last, step=100, overall=replace(last.overall, auroc=about(0.6)))
    empty = replace(last.overall, auroc=NOTHING)
    figure = membership_curve([last, replace(first, classes={**first.classes, "MEL": empty})])
    (axes,) = figure.axes
    curves = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert curves["all"] == [[100, 0.6], [500, 0.51]]
    assert curves["NV"] == [[100, 0.51], [500, 0.51]]
    assert curves["MEL"] == [[500, 0.51]]
    (ends,) = axes.collections
    assert [segment[:, 1].tolist() for segment in ends.get_segments()] == [
        pytest.approx([0.55, 0.65]), pytest.approx([0.46, 0.56])
    ]  # fmt: skip
