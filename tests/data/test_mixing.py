import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermsynth.data.mixing import PriorPreservation, Ratio, deal
from dermsynth.errors import InputError


def labels(count: int, classes: int = 3) -> np.ndarray:
    return np.arange(count, dtype=np.int64) % classes


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratio_outside_the_unit_interval_names_the_flag(ratio):
    with pytest.raises(InputError, match=r"mix\.ratio: .* outside \[0, 1\]"):
        Ratio(ratio)


@given(
    ratio=st.floats(0, 1),
    budget=st.sampled_from(["additive", "matched"]),
    real=st.integers(1, 300),
    synthetic=st.integers(1, 300),
    epoch=st.integers(0, 5),
)
@settings(deadline=None)
def test_ratio_is_kept_to_half_an_image(ratio, budget, real, synthetic, epoch):
    policy = Ratio(ratio, budget)
    if budget == "additive" and 0.99 < ratio < 1:
        return  # grows without bound towards 1
    order = policy.order(labels(real), labels(synthetic), seed=3, epoch=epoch)
    generated = int((order >= real).sum())
    assert len(order) == sum(policy.counts(real, synthetic))
    assert abs(generated - ratio * len(order)) <= 1
    assert order.min() >= 0
    assert order.max() < real + synthetic
    if budget == "matched":
        assert len(order) == real
    elif ratio < 1:
        assert sorted(order[order < real]) == list(range(real))


def test_order_depends_on_policy_seed_and_epoch_alone():
    arguments = labels(50), labels(20)
    first = Ratio(0.3).order(*arguments, seed=1, epoch=2)
    assert np.array_equal(first, Ratio(0.3).order(*arguments, seed=1, epoch=2))
    assert not np.array_equal(first, Ratio(0.3).order(*arguments, seed=1, epoch=3))
    assert not np.array_equal(first, Ratio(0.3).order(*arguments, seed=2, epoch=2))


def test_a_ratio_without_generated_images_is_refused():
    with pytest.raises(InputError, match=r"data\.synthetic names none"):
        Ratio(0.5).counts(10, 0)
    with pytest.raises(InputError, match=r"data\.synthetic names none"):
        PriorPreservation().counts(10, 0)


@given(size=st.integers(1, 40), count=st.integers(1, 90), epochs=st.integers(1, 5))
@settings(deadline=None)
def test_dealing_uses_every_image_equally_often(size, count, epochs):
    used = np.concatenate([deal(labels(size, 1), count, (0,), epoch, False) for epoch in range(epochs)])
    times = np.bincount(used, minlength=size)
    assert len(used) == count * epochs
    assert times.max() - times.min() <= 1


def test_balanced_dealing_draws_classes_equally_and_uses_up_the_large_ones():
    skewed = np.array([0] * 90 + [1] * 9 + [2], dtype=np.int64)
    drawn = np.concatenate([deal(skewed, 30, (0,), epoch, True) for epoch in range(9)])
    assert np.bincount(skewed[drawn]).tolist() == [90, 90, 90]
    assert sorted(drawn[skewed[drawn] == 0]) == list(range(90))
    assert set(np.bincount(drawn)[90:99]) == {10}


@given(real=st.integers(1, 60), synthetic=st.integers(1, 60), half=st.integers(1, 8))
@settings(deadline=None)
def test_prior_preservation_halves_every_even_batch(real, synthetic, half):
    order = PriorPreservation().order(labels(real), labels(synthetic), seed=0, epoch=1)
    for start in range(0, len(order) - 2 * half + 1, 2 * half):
        assert (order[start : start + 2 * half] >= real).sum() == half
    assert set(order[order < real]) <= set(range(real))
    assert len(set(order)) >= min(real, synthetic)
