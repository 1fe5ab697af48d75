import numpy as np
import pytest

from dermsynth.grids import grid, name_rows


def test_images_lie_in_rows_on_white():
    images = [np.full((2, 3, 3), value, dtype=np.uint8) for value in (10, 20, 30)]
    sheet = grid(images, columns=2, gap=1)
    assert sheet.shape == (5, 7, 3)
    assert sheet[:, :, 0].tolist() == [
        [10, 10, 10, 255, 20, 20, 20],
        [10, 10, 10, 255, 20, 20, 20],
        [255] * 7,
        [30, 30, 30, 255, 255, 255, 255],
        [30, 30, 30, 255, 255, 255, 255],
    ]


def test_names_stand_left_of_their_rows_and_leave_the_images_alone():
    sheet = grid([np.full((20, 20, 3), value, dtype=np.uint8) for value in (10, 20)], columns=1, gap=2)
    named = name_rows(sheet, ["nevus", ""])
    margin = named.shape[1] - sheet.shape[1]
    assert np.array_equal(named[:, margin:], sheet)
    assert (named[:20, :margin] < 128).any()
    assert (named[22:, :margin] == 255).all()


@pytest.mark.parametrize("size", [16, 64, 512])
@pytest.mark.parametrize("name", ["malignant generated", "a dermoscopic image of sks seborrheic keratosis"])
def test_a_long_name_keeps_clear_of_the_images_and_of_the_next_row(size, name):
    sheet = grid([np.zeros((size, size, 3), np.uint8)] * 2, columns=1)
    named = name_rows(sheet, [name, ""])
    margin = named.shape[1] - sheet.shape[1]
    ink = named[:, :margin].min(axis=2) < 200
    rows, columns = np.nonzero(ink)
    assert columns.min() > 0
    assert columns.max() < margin - 1
    assert rows.min() >= 0
    assert rows.max() < size + 1
    assert margin < 320
