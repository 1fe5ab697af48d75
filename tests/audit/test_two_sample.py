import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dermsynth.audit import two_sample as sampled
from dermsynth.audit.sides import Side
from dermsynth.audit.two_sample import FOLDS, Sample, told_apart, two_sample
from dermsynth.data.sets.manifest import ImageSet, Record


def with_features(features, origin, per_patient=1, classes=("NV", "MEL")):
    """A side and these features; classes take turns."""
    records = [
        Record(f"{n}.png", f"{origin}{n}", "", 8, 8, diagnosis=classes[n // per_patient % len(classes)],
               group=f"g{n // per_patient}", split="train", origin=origin)
        for n in range(len(features))
    ]  # fmt: skip
    side = Side((ImageSet(None, tuple(records)),), tuple((0, record) for record in records), "diagnosis")
    return side, features.astype(np.float32)


def test_samples_of_one_kind_are_not_told_apart_and_of_two_kinds_are():
    rng = np.random.default_rng(0)
    real, same, moved = rng.normal(size=(300, 6)), rng.normal(size=(200, 6)), rng.normal(0.6, 1, size=(200, 6))
    null = two_sample(*with_features(real, "real"), *with_features(same, "synthetic"), 0)
    assert null.overall.auroc.low < 0.5 < null.overall.auroc.high
    found = two_sample(*with_features(real, "real"), *with_features(moved, "synthetic"), 0)
    # The best rule knows both means: the area is that of two normal curves 0.6 √6 apart.
    assert found.overall.auroc.value == pytest.approx(0.85, abs=0.05)
    assert found.overall.auroc.low > 0.75
    for one in (found.overall, *found.classes.values()):
        assert abs(one.floor - 0.5) < 0.15
        assert one.floor <= one.floor_high < one.matched
    assert found.overall.n == 200
    assert 130 <= found.overall.n_half <= 150
    assert {name: one.n for name, one in found.classes.items()} == {"NV": 100, "MEL": 100}


def test_a_patient_is_in_one_fold():
    """Ten images a patient, alike but for a grain: split apart, the fit would know each by heart."""
    rng = np.random.default_rng(1)
    patients = rng.normal(size=(40, 60)).repeat(10, axis=0) + 0.01 * rng.normal(size=(400, 60))
    first, second = patients[:200], patients[200:]
    labels, groups = np.zeros(200, np.int64), np.arange(20).repeat(10)
    whole = told_apart(Sample(first, groups, labels), Sample(second, 20 + groups, labels), 0)
    assert whole.low < 0.5 < whole.high
    torn = told_apart(Sample(first, np.arange(200), labels), Sample(second, np.arange(200, 400), labels), 0)
    assert torn.value > 0.99


def test_numbers_of_each_class_do_not_tell():
    """Classes look different, and the generated side has other shares of them."""
    rng = np.random.default_rng(2)
    labels = [np.arange(400) % 8 == 0, np.arange(400) % 2 == 0]
    real, made = (rng.normal(size=(400, 3)) + 4 * of[:, None] for of in labels)
    naive = roc_auc_score(np.arange(800) >= 400, np.concatenate([real, made]).sum(axis=1))
    assert naive > 0.65
    samples = [Sample(f.astype(np.float32), np.arange(400) + 400 * n, labels[n].astype(np.int64))
               for n, f in enumerate((real, made))]  # fmt: skip
    draw, counts = np.random.default_rng(0), np.array([100, 50])
    found = told_apart(*(sample.sampled(counts, draw) for sample in samples), 0)
    assert found.low < 0.5 < found.high


def test_few_images_and_many(monkeypatch):
    rng = np.random.default_rng(3)
    few = two_sample(
        *with_features(rng.normal(size=(30, 2)), "real"),
        *with_features(rng.normal(size=(2 * FOLDS - 2, 2)), "synthetic"),
        0,
    )
    assert few.overall.auroc.value is not None
    assert few.classes["NV"].auroc.value is None
    assert few.classes["NV"].floor is None
    assert few.classes["NV"].n == FOLDS - 1
    monkeypatch.setattr(sampled, "LIMIT", 40)
    many = two_sample(
        *with_features(rng.normal(size=(300, 1)), "real", 3), *with_features(rng.normal(size=(300, 1)), "synthetic"), 0
    )
    assert (many.overall.n, many.overall.n_half) == (40, 40)
