import numpy as np

from dermsynth.grids import MARGIN, grid, name_rows


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
    assert np.array_equal(named[:, MARGIN:], sheet)
    assert (named[:20, :MARGIN] < 128).any()
    assert (named[22:, :MARGIN] == 255).all()
