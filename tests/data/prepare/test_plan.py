"""Which way of splitting a set's images take: here, what becomes of test images without a label."""

from dataclasses import replace

import pytest

from dermsynth.data.prepare.plan import Plan
from dermsynth.data.sets.manifest import Record, train_split_sha256
from dermsynth.errors import InputError

BY_SHARES = Plan("grouped", (0.5, 0.25, 0.25), None, "report", 0)


def records(labelled=12, unlabelled=3):
    """One image a patient; those without a label are an official test part."""
    known = [
        Record("", f"L{n}", f"{n:x}", 8, 8, "MEL" if n % 2 else "NV", n % 2, patient_id=f"P{n}")
        for n in range(labelled)
    ]
    return [*known, *(Record("", f"U{n}", f"u{n}", 8, 8, patient_id=f"Q{n}", split="test") for n in range(unlabelled))]


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


def test_labelled_test_images_and_folds_are_split_again():
    rows = [replace(row, split="test") for row in records(unlabelled=0)]
    assert {row.split for row in deal(rows).values()} == {"train", "val", "test"}
    folded = deal(records(), Plan("grouped", (), 3, "report", 0))
    assert {row.extra["fold"] for row in folded.values()} == {"0", "1", "2"}
    assert len({row.extra["fold"] for name, row in folded.items() if name.startswith("U")}) == 3


@pytest.mark.parametrize("straddling", ["report", "move"])
def test_one_file_in_train_and_test_is_taken_out_of_train(straddling):
    """Near-duplicates may be reported and stay; byte-identical ones are no matter of opinion."""
    rows = [replace(r, split=s) for r, s in zip(records(6, 0), 2 * ["train", "val", "test"], strict=True)]
    rows[0] = replace(rows[0], sha256=rows[2].sha256)
    dealt = deal(rows, Plan("official", (), None, straddling, 0), near=[("L0", "L2")])
    assert [dealt[f"L{n}"].split for n in range(6)] == ["unused", *(r.split for r in rows[1:])]


@pytest.mark.parametrize("plan", [BY_SHARES, Plan("grouped", (), 3, "report", 0)], ids=["shares", "folds"])
def test_one_file_under_two_names_is_one_group(plan):
    rows = [replace(row, sha256=f"{n // 2:x}") for n, row in enumerate(records(12, 0))]
    dealt = list(deal(rows, plan).values())
    assert all(one.split == other.split for one, other in zip(dealt[::2], dealt[1::2], strict=True))


@pytest.mark.parametrize("straddling", ["report", "move"])
def test_an_official_split_without_val_keeps_its_test_part_and_deals_val_from_train(straddling):
    rows = [replace(row, split="test" if n < 4 else "train") for n, row in enumerate(records(24, 0))]
    plan = Plan("official", (0.6, 0.2, 0.2), None, straddling, 0)
    dealt = deal(rows, plan, near=[("L0", "L4"), ("L5", "L6")])
    assert {n for n in range(24) if dealt[f"L{n}"].split == "test"} == set(range(4))
    assert sum(r.split == "val" for r in dealt.values()) == 5  # a quarter of what train and val are to have
    assert dealt["L4"].split == ("unused" if straddling == "move" else "train")
    assert dealt["L5"].split == dealt["L6"].split


@pytest.mark.parametrize("fractions", [(float("nan"), 0.5, 0.5), (float("inf"), 0, 0), (float("nan"),) * 3])
def test_shares_that_are_no_numbers_are_refused(fractions):
    for policy, splits in (("grouped", ["unused"]), ("official", ["train", "test"])):
        rows = [replace(row, split=splits[n % len(splits)]) for n, row in enumerate(records(8, 0))]
        with pytest.raises(InputError, match=r"--fractions: .*; expected shares"):
            Plan(policy, fractions, None, "report", 0).check(rows, [])
