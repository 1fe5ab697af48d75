import numpy as np

from dermsynth.grids import grid


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
