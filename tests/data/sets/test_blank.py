import cv2
import numpy as np
import pytest

from dermsynth.data.phantoms.patients import write as write_phantoms
from dermsynth.data.sets.blank import blank_reason
from dermsynth.data.sets.images import read_rgb

GREY = np.full((32, 32, 3), 128, np.uint8)


def test_what_shows_nothing():
    rng = np.random.default_rng(0)
    assert blank_reason(GREY) == "of one colour"
    assert blank_reason(GREY + rng.integers(0, 2, GREY.shape, np.uint8)) == "of one colour"
    assert blank_reason(rng.choice(np.array([0, 255], np.uint8), GREY.shape)) == "saturated"
    for level in (0, 255):
        assert blank_reason(np.full_like(GREY, level)) == "of one colour"


@pytest.mark.parametrize("change", ["faint", "dark", "framed"])
def test_what_shows_something(change):
    rng = np.random.default_rng(0)
    image = cv2.circle(GREY.copy(), (16, 16), 6, (120, 110, 100), -1) + rng.integers(0, 4, GREY.shape, np.uint8)
    if change == "dark":
        image = image // 8
    if change == "framed":
        image[cv2.circle(np.zeros((32, 32), np.uint8), (16, 16), 14, 1, -1) == 0] = 0
    assert blank_reason(image) == ""


def test_drawn_lesions_show_something(tmp_path):
    write_phantoms(tmp_path, patients=3, seed=0, size=32, malignant_share=0.3)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert files
    assert {blank_reason(read_rgb(file)) for file in files} == {""}
