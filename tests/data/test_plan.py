"""Which way of splitting a set's images take: here, what becomes of test images without a label."""

from dataclasses import replace

import pytest

from dermsynth.data.manifest import Record, train_split_sha256
from dermsynth.data.plan import Plan
from dermsynth.errors import InputError

BY_SHARES = Plan("grouped", (0.5, 0.25, 0.25), None, "report", 0)


def records(labelled=12, unlabelled=3):
    """One image a patient; those without a label are an official test part."""
    known = [
        Record("", f"L{n}", "0", 8, 8, "MEL" if n % 2 else "NV", n % 2, patient_id=f"P{n}") for n in range(labelled)
    ]
    return [*known, *(Record("", f"U{n}", "0", 8, 8, patient_id=f"Q{n}", split="test") for n in range(unlabelled))]


def deal(rows, plan=BY_SHARES, near=()):
    plan.check(rows, [])
    return {record.image_id: record for record in plan.deal(rows, [], near)}


def test_test_images_without_a_label_stay_and_the_others_are_dealt_as_if_they_were_not_there():
    dealt, without = deal(records()), deal(records(unlabelled=0))
    assert {dealt[f"U{n}"].split for n in range(3)} == {"test"}
    assert {name: r.split for name, r in dealt.items() if name in without} == {n: r.split for n, r in without.items()}
    assert train_split_sha256(dealt.values()) == train_split_sha256(without.values())


def test_who_belongs_to_them_goes_with_them():
    rows = records()
    rows[0] = replace(rows[0], patient_id="Q0")
    dealt = deal(rows, near=[("L3", "U1")])
    assert dealt["L0"].split == dealt["L3"].split == "test"
    assert dealt["L0"].group == dealt["U0"].group
    assert dealt["L3"].group == dealt["U1"].group


def test_a_set_of_nothing_else_is_a_test_set():
    assert {record.split for record in deal(records(labelled=0)).values()} == {"test"}


def test_they_do_not_count_as_groups_to_deal():
    with pytest.raises(InputError, match="2 patients or groups cannot be dealt to 3 splits"):
        BY_SHARES.check(records(labelled=2, unlabelled=9), [])


def test_labelled_test_images_and_folds_are_dealt_anew():
    rows = [replace(row, split="test") for row in records(unlabelled=0)]
    assert {row.split for row in deal(rows).values()} == {"train", "val", "test"}
    folded = deal(records(), Plan("grouped", (), 3, "report", 0))
    assert {row.extra["fold"] for row in folded.values()} == {"0", "1", "2"}
    assert len({row.extra["fold"] for name, row in folded.items() if name.startswith("U")}) == 3
