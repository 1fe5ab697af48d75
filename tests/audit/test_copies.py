import csv
import dataclasses

import numpy as np
import pytest

from dermsynth.audit.copies import MEASURES, exclude, find_copies, ranking, threshold, write_table
from dermsynth.data.sets import manifest
from tests.audit.sides import a_side, seen
from tests.planted import KINDS, drawn


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [[drawn(rng) for _ in range(count)] for count in (60, 400, 30)]


@pytest.fixture(scope="module")
def train(pictures):
    return seen(a_side(["NV"] * 60), np.arange(60)[:, None], pictures[0])


@pytest.fixture(scope="module")
def held_out(pictures):
    return seen(a_side(["NV"] * 400, split="test"), np.full((400, 1), 1000), pictures[1])


@pytest.fixture(scope="module")
def verdicts(train, held_out, pictures):
    """Eight copies of MEL, and thirty images of NV that are none."""
    copies = [make(pictures[0][number]) for number, make in enumerate(KINDS.values())]
    side = a_side(["MEL"] * len(KINDS) + ["NV"] * 30, split="unused")
    return find_copies(seen(side, np.full((38, 1), 2000), copies + pictures[2]), held_out, train)


def test_copies_are_told_from_strangers(verdicts):
    assert verdicts.copies[: len(KINDS)].sum() >= len(KINDS) - 1
    assert verdicts.copies[len(KINDS) :].sum() <= 1
    found = verdicts.search.nearest.train[: len(KINDS)]
    assert (found == np.arange(len(KINDS))).sum() >= len(KINDS) - 1


def test_counts_per_class_and_overall(verdicts):
    everything, melanoma, naevus = verdicts.result.rows
    assert [row.class_name for row in (everything, melanoma, naevus)] == ["", "MEL", "NV"]
    assert (everything.n, melanoma.n, naevus.n) == (38, 8, 30)
    assert everything.copies == melanoma.copies + naevus.copies == verdicts.copies.sum()
    assert melanoma.train_images == melanoma.copies
    assert melanoma.share.low < melanoma.copies / 8 == melanoma.share.value <= melanoma.share.high
    assert verdicts.result.n_held_out == 400
    assert verdicts.result.reached == pytest.approx(3 / 401)


def test_the_threshold_keeps_the_rate_of_false_alarms():
    rng, rate, alarms = np.random.default_rng(0), 0.05, []
    for _ in range(4000):
        distances = rng.gamma(3, size=100)
        alarms.append(distances[-1] < threshold("pixels", distances[:-1], rate).below)
    assert np.mean(alarms) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 4000) ** 0.5)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (98, 1), (99, 1), (199, 2), (998, 9)])
def test_the_rate_that_is_reached(count, k):
    found = threshold("pixels", np.arange(float(count)), 0.01)
    assert (found.below, found.rate) == (k - 1, k / (count + 1))
    assert found.rate <= 0.01 or count < 99


def test_without_held_out_images_nothing_is_a_copy(train):
    found = find_copies(train, None, train)
    assert not found.copies.any()
    assert found.result.reached is None
    assert {limit.below for limit in found.result.thresholds} == {None}


def test_near_duplicates_that_prepare_found_do_not_calibrate(train, pictures):
    side = a_side(["NV"] * 60, info={"near_duplicates": {"pairs": [["train0", "test1"], ["test3", "test2"]]}})
    known = dataclasses.replace(train, side=dataclasses.replace(side, sets=(_with_test(side.sets[0]),)))
    held_out = seen(a_side(["NV"] * 4, split="test"), pictures=[drawn(np.random.default_rng(n)) for n in range(4)])
    found = find_copies(train, held_out, known).result
    assert (found.n_held_out, found.left_out) == (3, 1)


def _with_test(images):
    others = tuple(a_side(["NV"] * 4, split="test").records)
    return dataclasses.replace(images, records=images.records + others)


def test_the_search_in_features_is_over_all_views_of_the_train_images(held_out, pictures):
    views = np.arange(8.0)[:, None, None] + 10 * np.arange(60.0)[None, :, None]
    train = seen(a_side(["NV"] * 60), pictures=pictures[0], views=views)
    found = find_copies(seen(a_side(["NV"] * 2), np.array([[27.0], [33.1]]), pictures[2][:2]), held_out, train)
    assert found.search.in_features.tolist() == [2, 3]
    assert found.search.distances[:, 2] == pytest.approx([0, 0.1], abs=1e-3)
    assert found.beyond[0, 2]
    assert found.by_features_alone[0]
    assert found.originals[0] == 2


def test_the_table_names_no_patient_and_begins_with_the_copies(verdicts, train, tmp_path):
    write_table(verdicts, train, tmp_path)
    rows = list(csv.DictReader((tmp_path / "copies.csv").open()))
    assert len(rows) == 38
    assert [row["verdict"] for row in rows] == ["copy"] * verdicts.copies.sum() + [""] * (~verdicts.copies).sum()
    first = rows[0]
    assert first["image_id"] == "unused0"
    assert first["nearest_in_pixels"] == "train0"
    assert set(first["by"].split()) <= set(MEASURES)
    assert float(first["pixels"]) == 0
    distances = [float(row["pixels"]) for row in rows if row["verdict"]]
    assert distances == sorted(distances)
    assert ranking(verdicts)[0] == 0
    assert "group" not in first


def test_excluded_images_are_marked_and_others_unmarked(verdicts, tmp_path):
    side = verdicts.search.seen.side
    reasons = {0: "", 1: "copy", 8: "copy", 9: "blurred"}
    records = [
        dataclasses.replace(r, origin="synthetic", extra={"excluded": reasons.get(n, "")})
        for n, r in enumerate(side.records)
    ]
    manifest.write(tmp_path, records, {"command": "drawn"})
    generated = manifest.read(tmp_path)
    ours = dataclasses.replace(side, sets=(generated,), images=tuple((0, r) for r in generated.records))
    again = dataclasses.replace(
        verdicts, search=dataclasses.replace(verdicts.search, seen=dataclasses.replace(verdicts.search.seen, side=ours))
    )
    assert exclude(again) == verdicts.copies.sum()
    written = [record.extra["excluded"] for record in manifest.read(tmp_path).records]
    expected = ["copy" if copy else "" for copy in verdicts.copies]
    assert written == [*expected[:9], "blurred", *expected[10:]]
    assert manifest.read(tmp_path).info["command"] == "drawn"
