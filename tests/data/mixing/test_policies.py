"""Properties that every policy has, then what each one states of itself."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.data.mixing.dealing import count_cells, rounded, sampled
from dermsynth.data.mixing.policies import (
    CountPerClass,
    FillUp,
    OversampledReal,
    PerDraw,
    PriorPreservation,
    Ratio,
    RatioPerClass,
    RealOnly,
    SyntheticFirst,
    SyntheticOnly,
)
from dermsynth.errors import InputError

CLASSES = 3
budgets = st.sampled_from(["additive", "matched"])
shares = st.floats(0, 0.9) | st.sampled_from([0.0, 0.25, 0.5, 0.75])
mixes = st.one_of(
    st.builds(RealOnly, st.booleans()),
    st.builds(SyntheticOnly, budgets, st.booleans()),
    st.builds(Ratio, shares | st.just(1.0), budgets, st.booleans()),
    st.builds(RatioPerClass, st.lists(shares | st.just(1.0), min_size=CLASSES, max_size=CLASSES), budgets),
    st.builds(CountPerClass, st.integers(0, 60), budgets),
    st.builds(FillUp, st.just("largest") | st.integers(1, 60), budgets),
    st.builds(PerDraw, shares, budgets),
    st.builds(SyntheticFirst, st.integers(1, 3), budgets),
    st.builds(PriorPreservation, st.booleans()),
)
policies = mixes | st.builds(OversampledReal, mixes)
#: How many real and generated images there are of each class.
sizes = st.lists(st.integers(1, 30), min_size=2 * CLASSES, max_size=2 * CLASSES).map(
    lambda numbers: np.array(numbers, dtype=float).reshape(2, CLASSES)
)
everything = settings(deadline=None, max_examples=200)


def labels(counts):
    """Records of these counts, the classes in turn rather than in blocks."""
    of = np.repeat(np.arange(len(counts)), counts.astype(int))
    return np.random.default_rng(0).permutation(of)


def order(policy, cells, epoch=0, seed=1):
    return policy.order(labels(cells[0]), labels(cells[1]), seed, epoch)


def counted(shown, cells):
    """How many records of each cell are shown."""
    real, made = labels(cells[0]), labels(cells[1])
    return count_cells(real[shown[shown < len(real)]], made[shown[shown >= len(real)] - len(real)], CLASSES)


@given(policies, sizes)
@everything
def test_every_epoch_is_as_long_as_stated_and_holds_records_that_there_are(policy, cells):
    for epoch in range(5):
        shown = order(policy, cells, epoch)
        assert shown.dtype == np.int64
        assert len(shown) == round(policy.expected(*cells).sum())
        assert shown.min() >= 0
        assert shown.max() < cells.sum()


@given(policies, sizes, st.integers(0, 6))
@everything
def test_the_order_depends_on_policy_seed_and_epoch_alone(policy, cells, epoch):
    shown = order(policy, cells, epoch)
    assert np.array_equal(shown, order(policy, cells, epoch))
    if len(set(shown)) > 15:  # fewer may come in the same order by chance
        assert not np.array_equal(shown, order(policy, cells, epoch + 1))
        assert not np.array_equal(shown, order(policy, cells, epoch, seed=2))


@given(policies.filter(lambda p: not isinstance(p, PerDraw | SyntheticFirst)), sizes, st.integers(1, 12))
@everything
def test_numbers_are_what_is_due_or_its_neighbour_and_over_the_epochs_what_is_due(policy, cells, epochs):
    due = policy.expected(*cells)
    each = np.array([counted(order(policy, cells, epoch), cells) for epoch in range(epochs)])
    assert np.all(np.abs(each - due) < 1 + 1e-6)
    assert np.all(np.abs(each.sum(axis=0) - epochs * due) < 2.5)
    whole = np.abs(due - np.round(due)) < 1e-9
    if whole.all():
        assert np.all(each == np.round(due))


@given(policies, sizes, st.integers(1, 6))
@everything
def test_nothing_comes_twice_before_all_of_its_kind_came_once(policy, cells, epochs):
    shown = np.concatenate([order(policy, cells, epoch) for epoch in range(epochs)])
    times = np.bincount(shown, minlength=int(cells.sum()))
    kinds = np.concatenate([labels(cells[0]), labels(cells[1]) + CLASSES])
    for kind in range(2 * CLASSES):
        assert np.ptp(times[kinds == kind]) <= 1


@given(
    st.one_of(
        st.builds(RealOnly),
        st.builds(Ratio, shares),
        st.builds(RatioPerClass, st.lists(shares, min_size=CLASSES, max_size=CLASSES)),
        st.builds(CountPerClass, st.integers(0, 60)),
        st.builds(FillUp, st.just("largest") | st.integers(1, 60)),
    ),
    sizes,
    st.integers(0, 6),
)
@everything
def test_additive_epochs_show_every_real_image_once(policy, cells, epoch):
    shown = order(policy, cells, epoch)
    real = int(cells[0].sum())
    assert sorted(shown[shown < real]) == list(range(real))


@given(policies, sizes)
@everything
def test_a_matched_epoch_is_as_long_as_the_real_set_and_composed_as_the_additive_one(policy, cells):
    if policy.budget == "matched" or isinstance(policy, RealOnly | SyntheticFirst):
        assert len(order(policy, cells)) == cells[0].sum()
    if policy.budget == "matched" and not isinstance(policy, OversampledReal):
        matched = policy.expected(*cells)
        policy.budget = "additive"
        additive = policy.expected(*cells)
        np.testing.assert_allclose(matched / matched.sum(), additive / additive.sum())


@given(st.floats(0, 1), budgets, sizes)
@everything
def test_ratio_is_kept_to_half_an_image(ratio, budget, cells):
    if budget == "additive" and 0.99 < ratio < 1:
        return  # grows without bound towards 1
    shown = order(Ratio(ratio, budget), cells)
    assert abs((shown >= cells[0].sum()).sum() - ratio * len(shown)) <= 1


@given(sizes)
@everything
def test_the_ends_of_the_ratio_are_real_and_generated_images_alone(cells):
    for ratio, alone in ((0, RealOnly()), (1, SyntheticOnly())):
        assert np.array_equal(order(Ratio(ratio), cells), order(alone, cells))


def test_what_each_policy_shows_by_hand():
    real, made = np.array([90.0, 9, 1]), np.array([20.0, 20, 40])

    def shown(policy):
        return policy.expected(real, made).tolist()

    assert shown(RealOnly()) == [[90, 9, 1], [0, 0, 0]]
    assert shown(RealOnly(class_balanced=True)) == [[pytest.approx(100 / 3)] * 3, [0, 0, 0]]
    assert shown(SyntheticOnly()) == [[0, 0, 0], [20, 20, 40]]
    assert shown(SyntheticOnly("matched")) == [[0, 0, 0], [25, 25, 50]]
    assert shown(Ratio(0.5)) == [[90, 9, 1], [25, 25, 50]]
    assert shown(Ratio(0.5, "matched")) == [[45, 4.5, 0.5], [12.5, 12.5, 25]]
    assert shown(RatioPerClass([0, 0.5, 0.75])) == [[90, 9, 1], [0, 9, 3]]
    assert shown(RatioPerClass([0, 0, 1])) == [[90, 9, 0], [0, 0, 40]]
    assert shown(CountPerClass(50)) == [[90, 9, 1], [50, 50, 50]]
    assert shown(CountPerClass([0, 10, 90], "matched")) == [[45, 4.5, 0.5], [0, 5, 45]]
    assert shown(FillUp()) == [[90, 9, 1], [0, 81, 89]]
    assert shown(FillUp(to=20)) == [[90, 9, 1], [0, 11, 19]]
    assert shown(PerDraw(0.5)) == [[90, 9, 1], [90, 9, 1]]
    assert shown(PerDraw(0.5, "matched")) == [[45, 4.5, 0.5], [45, 4.5, 0.5]]
    assert shown(PriorPreservation()) == [[90, 9, 1], [25, 25, 50]]
    assert shown(OversampledReal(Ratio(0.5))) == [[115, 34, 51], [0, 0, 0]]
    assert shown(OversampledReal(FillUp(budget="matched"))) == [[pytest.approx(100 / 3)] * 3, [0, 0, 0]]


@given(mixes, sizes)
@everything
def test_the_control_shows_each_class_as_often_as_its_arm_and_no_generated_image(policy, cells):
    arm, control = policy.expected(*cells), OversampledReal(policy).expected(*cells)
    np.testing.assert_allclose(control.sum(axis=0), arm.sum(axis=0), atol=1)  # an arm rounds each origin
    np.testing.assert_allclose(control.sum(), arm.sum(), atol=1)
    assert not control[1].any()


@given(sizes, st.integers(1, 8), st.booleans(), st.integers(0, 4))
@everything
def test_prior_preservation_halves_every_even_batch(cells, half, balanced, epoch):
    shown = order(PriorPreservation(balanced), cells, epoch)
    for start in range(0, len(shown) - 2 * half + 1, 2 * half):
        assert (shown[start : start + 2 * half] >= cells[0].sum()).sum() == half


def test_prior_preservation_pairs_images_again_each_epoch():
    cells = np.full((2, CLASSES), 10.0)
    pairs = [set(map(tuple, order(PriorPreservation(), cells, epoch).reshape(-1, 2))) for epoch in range(2)]
    assert len(pairs[0] & pairs[1]) < 10


def test_draws_are_binomial():
    cells = np.array([[300.0, 100, 100], [7, 7, 7]])
    each = np.array([counted(order(PerDraw(0.3, "matched"), cells, epoch), cells) for epoch in range(200)])
    np.testing.assert_allclose(each.mean(axis=0), PerDraw(0.3, "matched").expected(*cells), rtol=0.1)
    generated = each[:, 1].sum(axis=1)
    # Variance of a binomial; its estimate from 200 has a relative standard error of a tenth.
    assert generated.var() == pytest.approx(500 * 0.3 * 0.7, rel=0.4)


def test_generated_images_come_first_then_real_ones():
    cells = np.array([[4.0, 4, 4], [10, 10, 10]])
    for policy, first in ((SyntheticFirst(2, "matched"), 2), (SyntheticFirst(2, "additive"), 5)):
        origins = [set(order(policy, cells, epoch) >= 12) for epoch in range(first + 2)]
        assert origins == [{True}] * first + [{False}] * 2
        assert policy.expected(*cells).tolist() == [[4, 4, 4], [0, 0, 0]]
    shown = np.concatenate([order(SyntheticFirst(2), cells, epoch) for epoch in range(5)])
    assert np.bincount(shown)[12:].tolist() == [2] * 30
    assert "5 epochs of 12 generated images, then real ones" in SyntheticFirst(2).describe(*cells)


def test_an_epoch_is_described():
    assert Ratio(0.8).describe(np.array([4.0, 4]), np.array([6.0, 6])) == (
        "an epoch: 8 real images, each shown once, and 12 generated images, each shown 2.7 times"
    )
    assert Ratio(0.5, budget="matched").describe(np.array([4.0, 4]), np.array([6.0, 6])) == (
        "an epoch: 4 of 8 real images, and 4 of 12 generated images"
    )


def test_classes_that_are_shown_unequally_often_are_told_apart():
    said = PriorPreservation(class_balanced=True).describe(np.array([60.0, 20, 10, 0]), np.array([10.0, 10, 10, 0]))
    assert said == (
        "an epoch: 90 showings of 90 real images, of each class 0.5, 1.5, 3, 0 times its number, "
        "and 30 generated images, each shown 3 times"
    )


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ratio(-0.1), r"mix\.ratio: -0.1 is outside \[0, 1\]"),
        (lambda: Ratio(1.1), r"mix\.ratio: 1.1 is outside \[0, 1\]"),
        (lambda: Ratio(float("nan")), r"mix\.ratio: nan is outside \[0, 1\]"),
        (lambda: RatioPerClass([0.5, 2]), r"mix\.ratios: \[0.5, 2\] must lie in \[0, 1\]"),
        (lambda: CountPerClass(-1), r"mix\.count: -1 is below 0"),
        (lambda: CountPerClass([3, -1]), r"mix\.count: \[3, -1\] is below 0"),
        (lambda: FillUp(0), r"mix\.to: 0 is below 1"),
        (lambda: PerDraw(1), r"mix\.probability: 1 is outside \[0, 1\)"),
        (lambda: SyntheticFirst(0), r"mix\.epochs: 0 is below 1"),
    ],
)
def test_numbers_out_of_range_name_their_key(make, said):
    with pytest.raises(InputError, match=said):
        make()


@pytest.mark.parametrize(
    ("policy", "generated", "said"),
    [
        (Ratio(0.5), [0, 0], r"mix\.ratio: 0.5 asks for generated images, but data\.synthetic names none"),
        (SyntheticOnly(), [0, 0], r"mix: SyntheticOnly asks for generated images"),
        (SyntheticFirst(1), [0, 0], r"mix: SyntheticFirst asks for generated images"),
        (PriorPreservation(), [0, 0], r"mix: PriorPreservation asks for generated images"),
        (OversampledReal(Ratio(0.5)), [0, 0], r"mix\.ratio: 0.5 asks for generated images"),
        (FillUp(30), [5, 0], r"mix: FillUp asks for generated images of class 2 of data\.classes"),
        (CountPerClass(3), [0, 5], r"mix: CountPerClass asks for generated images of class 1 of data\.classes"),
        (RatioPerClass([0, 1]), [5, 0], r"mix: RatioPerClass asks for generated images of class 2"),
        (PerDraw(0.5), [5, 0], r"mix: PerDraw asks for generated images of class 2"),
        (RatioPerClass([0.5]), [5, 5], r"mix\.ratios: \[0.5\] must be one number for each of the 2 data\.classes"),
        (CountPerClass([1, 2, 3]), [5, 5], r"mix\.count: \[1, 2, 3\] must be one number for each of the 2"),
    ],
)
def test_images_that_there_are_none_of_are_named(policy, generated, said):
    with pytest.raises(InputError, match=said):
        policy.expected(np.array([20.0, 10]), np.array(generated, dtype=float))


def test_a_class_with_generated_images_alone_has_no_control():
    with pytest.raises(InputError, match=r"OversampledReal asks for real images of class 2 of data\.classes"):
        OversampledReal(Ratio(0.5)).expected(np.array([20.0, 0]), np.array([5.0, 5]))


def test_rounding_has_no_rhythm_that_starves_a_cell():
    for share in np.linspace(0.01, 0.99, 23):
        numbers = rounded(np.array([[1 - share], [share]]), 1000)
        assert numbers.sum(axis=(1, 2)).tolist() == [1] * 1000
        assert abs(numbers[:, 1, 0].sum() - 1000 * share) < 4


def test_earlier_epochs_stay_as_they_were_when_more_are_asked_for():
    expected = np.array([[3.3, 0.2], [1.5, 5.0]])
    assert np.array_equal(rounded(expected, 9)[:4], rounded(expected, 4))
    assert np.array_equal(sampled(expected, 9, seed=3)[:4], sampled(expected, 4, seed=3))


@pytest.mark.parametrize(
    "policy", [RealOnly(), Ratio(0.5), FillUp(), PriorPreservation(True), OversampledReal(FillUp())]
)
def test_an_order_takes_a_few_times_its_own_memory(policy):
    count = 100_000
    real, made = np.arange(count) % 10 // 8, np.arange(count // 2) % 2
    policy.order(real, made, 0, 0)  # what is imported on first use does not count
    tracemalloc.start()
    shown = policy.order(real, made, 0, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.2 * max(shown.nbytes, real.nbytes)
