"""Groups and the stratified split: no group in two splits, whatever the set."""

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.data.prepare.splits import choose_fold, deal_folds, grouped_split, groups, split_of_fold
from dermsynth.data.sets.manifest import ImageSet, Record, train_split_sha256
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
        assert groups(records) == ["P", "M", "image:ISIC_0000002"]

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

    @given(
        st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["MEL", "NV", "NV", "NV", "SK"])), min_size=150),
        st.sampled_from([FRACTIONS, (0.75, 0.1, 0.15), (0.67, 0.2, 0.13), (0.85, 0.15, 0), (0.34, 0.33, 0.33)]),
        st.integers(0, 2**32 - 1),
    )
    @settings(max_examples=10, deadline=None)
    def test_shares_are_within_a_point_of_what_is_asked_where_groups_are_small(self, sizes, fractions, seed):
        drawn = [(d, f"P{group}") for group, (size, d) in enumerate(sizes) for _ in range(size)]
        records = [record(i, d, int(d == "MEL"), patient) for i, (d, patient) in enumerate(drawn)]
        split = Counter(grouped_split(records, groups(records), fractions, seed))
        for name, share in zip(("train", "val", "test"), fractions, strict=True):
            assert split[name] / len(records) == pytest.approx(share, abs=0.01)

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


class TestFolds:
    def test_folds_are_alike_and_groups_whole(self):
        records = many()
        names = groups(records)
        fold = deal_folds(records, names, 5, seed=0)
        assert sorted(Counter(fold)) == list(range(5))
        for number in range(5):
            ours = [r for r, f in zip(records, fold, strict=True) if f == number]
            assert len(ours) == pytest.approx(60, abs=10)
            assert sum(r.diagnosis == "MEL" for r in ours) == 2
        assert len(set(zip(names, fold, strict=True))) == len(set(names))

    def test_the_seed_decides_and_the_order_of_rows_does_not(self):
        records = many()
        names = groups(records)
        first = deal_folds(records, names, 4, seed=3)
        assert deal_folds(records[::-1], names[::-1], 4, seed=3) == first[::-1]
        assert deal_folds(records, names, 4, seed=4) != first

    @pytest.mark.parametrize("folds", [-1, 0, 2, 7])
    def test_a_wrong_number_is_refused(self, folds):
        records = [record(i, patient=f"P{i % 6}") for i in range(12)]
        with pytest.raises(InputError, match=f"--folds {folds}: expected 3 .* to 6"):
            deal_folds(records, groups(records), folds, seed=0)

    @given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["MEL", "NV", ""])), min_size=1), st.data())
    @settings(max_examples=60, deadline=None)
    def test_no_fold_is_empty_and_no_group_torn(self, rows, data):
        records = [record(i, d, patient=p) for i, (p, d) in enumerate(rows)]
        names = groups(records)
        if len(set(names)) < 3:
            return
        folds = data.draw(st.integers(3, len(set(names))))
        fold = deal_folds(records, names, folds, seed=0)
        assert set(fold) == set(range(folds))
        assert len(set(zip(names, fold, strict=True))) == len(set(names))

    def test_each_image_is_tested_on_once_validated_on_once_and_trained_on_otherwise(self):
        records = tuple(replace(record(i), extra={"fold": str(i % 5)}, split="train") for i in range(20))
        images = ImageSet(Path("set"), (*records, replace(record(99), split="unused")))
        chosen = [choose_fold(images, fold) for fold in range(5)]
        for number in range(20):
            splits = Counter(c.records[number].split for c in chosen)
            assert splits == {"train": 3, "val": 1, "test": 1}
        assert {c.records[-1].split for c in chosen} == {"unused"}
        assert len({train_split_sha256(c.records) for c in chosen}) == 5
        assert [split_of_fold(f, 4, 5) for f in range(5)] == ["val", "train", "train", "train", "test"]

    def test_the_number_of_folds_is_that_of_prepare_though_the_last_one_is_in_quarantine(self):
        left = tuple(replace(record(i), extra={"fold": str(i % 3)}, split="train") for i in range(9))
        images = ImageSet(Path("set"), left, {"settings": {"folds": 4}})
        splits = {r.extra["fold"]: r.split for r in choose_fold(images, 2).records}
        assert splits == {"0": "train", "1": "train", "2": "test"}  # fold 3, for validation, is empty
        assert {r.split for r in choose_fold(images, 3).records if r.extra["fold"] == "0"} == {"val"}

    def test_a_fold_that_is_not_there_is_refused(self):
        folded = ImageSet(
            Path("set"), tuple(replace(record(i), extra={"fold": str(i % 3)}, split="train") for i in range(9))
        )
        for wrong in (-1, 3):
            with pytest.raises(InputError, match=f"data.fold: {wrong}; set has the folds 0 to 2"):
                choose_fold(folded, wrong)
        with pytest.raises(InputError, match="set has no folds"):
            choose_fold(ImageSet(Path("set"), (replace(record(0), split="train"),)), 0)
