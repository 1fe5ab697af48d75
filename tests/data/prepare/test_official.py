"""An official split that others made: kept as it is, or corrected without touching its test images."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermsynth.data.prepare import official
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError

SPLITS = ["train", "train", "val", "val", "test", "test", "unused"]


def records(patients=("",) * 7):
    return [
        Record(f"images/{n}.png", str(n), "0", 8, 8, patient_id=patient, split=split)
        for n, (split, patient) in enumerate(zip(SPLITS, patients, strict=True))
    ]


def test_a_link_across_joins_nothing_and_one_within_does():
    links = [("0", "1"), ("0", "4"), ("1", "6"), ("6", "5")]
    names = official.keep(records(), [], links)
    assert names[0] == names[1]
    assert len(set(names)) == 6
    assert official.across(records(), links) == [("0", "4")]


def test_near_duplicates_that_are_unused_do_not_join_patients_of_two_splits():
    rows = [
        *(Record("a.png", name, "0", 8, 8, patient_id="P", split=s) for name, s in (("p1", "train"), ("p2", "unused"))),
        *(Record("b.png", name, "0", 8, 8, patient_id="Q", split=s) for name, s in (("q1", "test"), ("q2", "unused"))),
    ]
    assert official.keep(rows, [], [("p2", "q2")]) == ["P", "P", "Q", "Q"]


def test_a_patient_that_only_a_copy_names_is_refused_across_splits():
    near, known = [("0", "2")], [("0", "4")]
    assert len(set(official.keep(records(), [], near))) == 7
    with pytest.raises(InputError, match=r"1 patients or lesions .* splits: 0 \(train\), 4 \(test\)\. "):
        official.keep(records(), known, near)
    assert official.keep(records(), [("2", "3")], near)[2:4] == ["image:2", "image:2"]


def test_a_patient_in_two_splits_is_refused_or_corrected():
    torn = records(("P", "", "", "", "P", "", ""))
    with pytest.raises(InputError, match=r"1 patients or lesions lie in several of its splits: 0 .*, 4 ") as error:
        official.keep(torn, [], [])
    assert "P" not in str(error.value)
    names, splits = official.move(torn, [])
    assert names[0] == names[4]
    assert splits == ["unused", *SPLITS[1:]]


@pytest.mark.parametrize(
    ("links", "out"),
    [
        ([], []),
        ([("0", "1"), ("4", "5")], []),
        ([("0", "4")], [0]),
        ([("0", "2")], [0]),  # the validation image stays
        ([("2", "4")], [2]),
        ([("0", "2"), ("2", "4")], [0, 2]),  # through one another
        ([("0", "6"), ("6", "4")], [0]),  # through an unused one
    ],
)
def test_the_split_that_counts_most_stays_whole(links, out):
    _, splits = official.move(records(), links)
    assert splits == ["unused" if n in out else split for n, split in enumerate(SPLITS)]


@given(
    st.lists(st.sampled_from("ABCD") | st.just(""), min_size=7, max_size=7),
    st.lists(st.tuples(st.sampled_from("0123456"), st.sampled_from("0123456")), max_size=6),
)
def test_corrected_no_group_straddles_and_the_test_images_are_the_same(patients, links):
    before = records(patients)
    names, splits = official.move(before, links)
    of_group = {name: {s for n, s in zip(names, splits, strict=True) if n == name} - {"unused"} for name in names}
    assert all(len(places) <= 1 for places in of_group.values())
    assert [s == "test" for s in splits] == [r.split == "test" for r in before]
    corrected = [replace(r, split=s) for r, s in zip(before, splits, strict=True)]
    assert official.move(corrected, links) == (names, splits)
