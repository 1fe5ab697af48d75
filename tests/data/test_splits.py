"""Groups and the stratified split: no group in two splits, whatever the set."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.data.manifest import Record
from dermsynth.data.splits import UnionFind, grouped_split, groups
from dermsynth.errors import InputError

FRACTIONS = (0.7, 0.15, 0.15)


def record(number, diagnosis="NV", malignant=0, patient="", lesion=""):
    name = f"ISIC_{number:07d}"
    return Record(
        f"images/{name}.png",
        name,
        "0",
        8,
        8,
        diagnosis=diagnosis,
        malignant=malignant,
        patient_id=patient,
        lesion_id=lesion,
    )


def many(patients=60, each=5):
    """Every sixth patient has a melanoma, every fourth a keratosis."""
    return [
        record(
            patient * each + i,
            "MEL" if i == 0 and patient % 6 == 0 else "SK" if i == 1 and patient % 4 == 0 else "NV",
            int(i == 0 and patient % 6 == 0),
            f"P{patient}",
        )
        for patient in range(patients)
        for i in range(each)
    ]


class TestGroups:
    def test_patient_else_lesion_else_image(self):
        records = [record(0, patient="P", lesion="L"), record(1, lesion="M"), record(2)]
        assert groups(records) == ["P", "M", "ISIC_0000002"]

    def test_patients_and_lesions_join_transitively(self):
        records = [
            record(0, patient="P", lesion="L"),
            record(1, lesion="L"),  # the same lesion, patient not noted
            record(2, patient="P"),
            record(3, patient="Q"),
        ]
        names = groups(records)
        assert names[0] == names[1] == names[2] != names[3]

    def test_links_join_images(self):
        names = groups([record(i) for i in range(4)], links=[("ISIC_0000003", "ISIC_0000001")])
        assert names[1] == names[3]
        assert len(set(names)) == 3

    def test_names_do_not_depend_on_the_order(self):
        records = [record(i, patient=f"P{i % 3}", lesion=f"L{i % 4}") for i in range(8)] + [record(9)]
        forward = dict(zip([r.image_id for r in records], groups(records), strict=True))
        backward = dict(zip([r.image_id for r in records[::-1]], groups(records[::-1]), strict=True))
        assert forward == backward

    def test_union_keeps_the_first_root_through_a_chain_in_any_order(self):
        for pairs in (
            [("a", "b"), ("b", "c")],
            [("b", "c"), ("a", "b")],
            [("a", "b"), ("b", "a"), ("a", "c")],
        ):
            sets = UnionFind()
            for first, second in pairs:
                sets.union(first, second)
            assert {sets.find(x) for x in "abc"} == {"a"}


class TestGroupedSplit:
    def test_shares_and_strata_are_kept(self):
        records = many()
        split = grouped_split(records, groups(records), FRACTIONS, seed=0)
        sizes = Counter(split)
        for name, share in zip(("train", "val", "test"), FRACTIONS, strict=True):
            assert sizes[name] / len(records) == pytest.approx(share, abs=0.03)
            ours = [r.diagnosis for r, s in zip(records, split, strict=True) if s == name]
            for code in ("MEL", "SK"):
                overall = sum(r.diagnosis == code for r in records) / len(records)
                assert ours.count(code) / len(ours) == pytest.approx(overall, rel=0.35)

    def test_the_seed_decides_and_the_order_of_rows_does_not(self):
        records = many()
        names = groups(records)
        first = grouped_split(records, names, FRACTIONS, seed=3)
        assert grouped_split(records, names, FRACTIONS, seed=3) == first
        assert grouped_split(records[::-1], names[::-1], FRACTIONS, seed=3) == first[::-1]
        assert grouped_split(records, names, FRACTIONS, seed=4) != first

    @pytest.mark.parametrize("seed", range(8))
    def test_a_class_of_three_patients_reaches_all_three_splits(self, seed):
        records = many(30)
        records += [record(1000 + i, "BCC", 1, f"rare{i}") for i in range(3)]
        split = grouped_split(records, groups(records), (0.6, 0.2, 0.2), seed)
        assert {s for r, s in zip(records, split, strict=True) if r.diagnosis == "BCC"} == {
            "train",
            "val",
            "test",
        }

    @pytest.mark.parametrize(
        ("fractions", "expected"),
        [
            ((0.8, 0.2, 0), {"train", "val"}),
            ((0.5, 0, 0.5), {"train", "test"}),
            ((1, 0, 0), {"train"}),
            ((0.9, 0.05, 0.05), {"train", "val", "test"}),
            ((0.998, 0.001, 0.001), {"train", "val", "test"}),
        ],
    )
    def test_fractions(self, fractions, expected):
        records = [record(i) for i in range(200)]
        sizes = Counter(grouped_split(records, groups(records), fractions, seed=0))
        assert set(sizes) == expected
        for name, share in zip(("train", "val", "test"), fractions, strict=True):
            assert sizes[name] / 200 == pytest.approx(share, abs=max(0.02, share / 10))

    @pytest.mark.parametrize("wrong", [(0.7, 0.2, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.5)])
    def test_wrong_fractions_are_refused(self, wrong):
        records = [record(i) for i in range(20)]
        with pytest.raises(InputError, match="--fractions"):
            grouped_split(records, groups(records), wrong, seed=0)

    def test_a_wrong_seed_is_refused(self):
        records = [record(i) for i in range(20)]
        with pytest.raises(InputError, match="--seed -1"):
            grouped_split(records, groups(records), FRACTIONS, seed=-1)

    def test_fewer_groups_than_splits_are_refused(self):
        records = [record(i, patient=f"P{i % 2}") for i in range(10)]
        with pytest.raises(InputError, match="2 patients or groups cannot be dealt to 3 splits"):
            grouped_split(records, groups(records), FRACTIONS, seed=0)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["MEL", "NV", "SK", ""]),
                st.sampled_from([0, 1, None]),
                st.sampled_from(["", *"ABCDEFGH"]),
                st.sampled_from(["", *"uvwxyz"]),
            ),
            min_size=1,
            max_size=40,
        ),
        st.sampled_from([FRACTIONS, (0.8, 0.2, 0.0), (0.34, 0.33, 0.33), (0.1, 0.45, 0.45), (0.9, 0.08, 0.02)]),
        st.integers(0, 2**32 - 1),
    )
    @settings(max_examples=80, deadline=None)
    def test_no_group_lies_in_two_splits_and_no_split_is_empty(self, rows, fractions, seed):
        records = [record(i, d, m, p, lesion) for i, (d, m, p, lesion) in enumerate(rows)]
        names = groups(records)
        wanted = {n for n, f in zip(("train", "val", "test"), fractions, strict=True) if f > 0}
        if len(set(names)) < len(wanted):
            with pytest.raises(InputError):
                grouped_split(records, names, fractions, seed)
            return
        split = grouped_split(records, names, fractions, seed)
        assert set(split) == wanted
        for key in ("patient_id", "lesion_id"):
            splits_of = defaultdict(set)
            for r, s in zip(records, split, strict=True):
                if value := getattr(r, key):
                    splits_of[value].add(s)
            assert all(len(found) == 1 for found in splits_of.values())
