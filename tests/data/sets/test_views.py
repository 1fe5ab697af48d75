import numpy as np
import pytest

from dermsynth.data.sets.views import VIEWS, random_view, view


def test_the_views_are_the_eight_symmetries_of_the_square():
    picture = np.arange(16, dtype=np.uint8).reshape(4, 4)
    turned = [np.rot90(p, n) for p in (picture, picture.T) for n in range(4)]
    assert {view(picture, n).tobytes() for n in range(VIEWS)} == {t.tobytes() for t in turned}
    np.testing.assert_array_equal(view(picture, 0), picture)


@pytest.mark.parametrize("number", range(VIEWS))
def test_images_of_a_stack_are_turned_alike(number):
    stack = np.random.default_rng(0).random((2, 3, 4, 5))
    turned = view(stack, number)
    for place in np.ndindex(2, 3):
        np.testing.assert_array_equal(view(stack[place], number), turned[place])


def test_each_view_is_drawn_as_often_as_the_others_and_by_the_seed_alone():
    drawn = [random_view(seed) for seed in range(4000)]
    assert drawn == [random_view(seed) for seed in range(4000)]
    counts = np.bincount(drawn, minlength=VIEWS)
    # Binomial: 500 of 4,000 expected, standard deviation 21.
    assert len(counts) == VIEWS
    assert np.abs(counts - 500).max() < 5 * 21
