import numpy as np
import pytest

from dermsynth.audit import fidelity as module
from dermsynth.audit.fidelity import MEASURES, fidelity
from tests.audit.sides import a_side, seen

CLASSES = ["NV"] * 120 + ["MEL"] * 80
GROUPS = [number // 4 for number in range(200)]


def features(rng, count=200, scale=1.0):
    return scale * rng.normal(size=(count, 6))


@pytest.fixture(scope="module")
def found():
    """By the measure and class: of a generator like the real images for NV, of one that repeats itself for MEL."""
    rng = np.random.default_rng(0)
    train = seen(a_side(CLASSES, GROUPS), features(rng))
    generated = np.concatenate([features(rng, 60), features(rng, 60, scale=0.1) + 0.2])
    result = fidelity(train, seen(a_side(["NV"] * 60 + ["MEL"] * 60), generated), seed=0)
    return {(row.measure, row.class_name): row for row in result.rows}


def test_every_measure_for_all_and_each_class(found):
    assert list(found) == [(measure, name) for name in ("", "MEL", "NV") for measure in MEASURES]
    assert (found["fid", ""].n_real, found["fid", ""].n_synthetic) == (200, 120)
    assert (found["fid", "MEL"].n_real, found["fid", "MEL"].n_synthetic) == (80, 60)
    assert all(row.floor is not None and row.floor_sd > 0 for row in found.values())


@pytest.mark.parametrize("measure", MEASURES)
def test_the_same_distribution_is_at_its_floor(found, measure):
    row = found[measure, "NV"]
    assert abs(row.matched - row.floor) < 3 * (row.matched_sd**2 + row.floor_sd**2) ** 0.5


def test_a_generator_that_repeats_itself_is_not(found):
    for measure in ("fid", "kid"):
        row = found[measure, "MEL"]
        assert row.matched > row.floor + 3 * row.floor_sd
    for measure in ("recall", "coverage", "irs", "diversity"):
        row = found[measure, "MEL"]
        assert row.matched < row.floor - 3 * row.floor_sd
    assert found["precision", "MEL"].matched > 0.9


def test_spread_and_interval(found):
    assert found["kid", ""].sd > 0
    irs = found["irs", ""]
    assert irs.low < irs.value < irs.high


def test_halves_share_no_patient_and_are_halves():
    groups = np.array([str(group) for group in GROUPS] + ["one of many images"] * 30)
    for repeat in range(20):
        first = module._first_half(groups, 0, repeat)
        assert not set(groups[first]) & set(groups[~first])
        assert 0.35 < first.mean() < 0.65
    assert (module._first_half(groups, 0, 0) != module._first_half(groups, 0, 1)).any()
    assert (module._first_half(groups, 0, 0) == module._first_half(groups, 0, 0)).all()


def test_equal_numbers_of_images():
    rng = np.random.default_rng(0)
    sizes = []
    original = module._measure

    def measure(real, synthetic, subsets, draw):
        sizes.append((len(real), len(synthetic)))
        return original(real, synthetic, subsets, draw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_measure", measure)
        patch.setattr(module, "LIMIT", 70)
        fidelity(seen(a_side(CLASSES, GROUPS), features(rng)), seen(a_side(["NV"] * 90), features(rng, 90)), seed=0)
    whole, *halves = sizes[: 1 + 2 * module.REPEATS]
    assert whole == (70, 70)
    assert all(ours == theirs for ours, theirs in zip(halves[::2], halves[1::2], strict=True))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_too_few_images_are_said_and_not_measured(count):
    rng = np.random.default_rng(0)
    train = seen(a_side(["NV"] * count), features(rng, count))
    rows = fidelity(train, seen(a_side(["NV"] * count), features(rng, count)), seed=0).rows
    by_measure = {row.measure: row for row in rows if not row.class_name}
    assert by_measure["precision"].value is None
    assert (by_measure["fid"].value is None) == (count < 2)
    assert by_measure["irs"].value is not None


def test_a_class_without_real_images():
    rng = np.random.default_rng(0)
    rows = fidelity(seen(a_side(["NV"] * 20), features(rng, 20)), seen(a_side(["BCC"] * 20), features(rng, 20)), 0).rows
    assert {row.value for row in rows if row.class_name == "BCC" and row.measure != "diversity"} == {None}
