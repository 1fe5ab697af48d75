"""Hair and border on drawn skin, where it is known what lies under them."""

import cv2
import numpy as np
import pytest

from dermsynth.data.cleaning import Cleaning, crop_border, remove_hair


def skin(height=300, width=400, lesion=60):
    """Pink skin with a dark brown lesion in the middle."""
    grain = np.random.default_rng(0).normal(0, 2, (height, width, 1))
    image = np.clip(np.array([215, 165, 150]) + grain, 0, 255).astype(np.uint8)
    cv2.circle(image, (width // 2, height // 2), lesion, (95, 60, 50), -1)
    return cv2.GaussianBlur(image, (7, 7), 0)


def hairs(image):
    """Where hairs are drawn on the image, which is changed."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for start, end in [((20, 30), (380, 120)), ((60, 280), (200, 10)), ((330, 20), (250, 290))]:
        cv2.line(mask, start, end, 1, 3)
    image[mask > 0] = (45, 30, 25)
    return mask > 0


@pytest.mark.parametrize("scale", [1, 3])
def test_hair_is_painted_over_with_what_lies_beside_it(scale):
    bare = skin()
    hairy = bare.copy()
    mask = hairs(hairy)
    large = [cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for p in (bare, hairy)]
    mask = cv2.resize(mask.astype(np.uint8), None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST) > 0
    bare, hairy = large
    cleaned = remove_hair(hairy).astype(int)
    before = np.abs(hairy.astype(int) - bare)[mask].mean()
    after = np.abs(cleaned - bare)[mask].mean()
    assert after < before / 8
    around = cv2.dilate(mask.astype(np.uint8), np.ones((15 * scale, 15 * scale))) > 0
    assert np.abs(cleaned - bare)[~around].max() <= 2


def test_a_lesion_its_dots_and_its_edge_are_no_hair():
    image = skin()
    for x, y in np.random.default_rng(1).integers(-35, 35, (15, 2)):
        cv2.circle(image, (200 + int(x), 150 + int(y)), 3, (40, 25, 20), -1)
    np.testing.assert_array_equal(remove_hair(image), image)


@pytest.mark.parametrize(("top", "bottom", "left", "right"), [(0, 0, 50, 70), (30, 10, 0, 0), (12, 20, 40, 8)])
def test_a_black_frame_is_cut_off(top, bottom, left, right):
    inside = skin()
    framed = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(6, 5, 7))
    np.testing.assert_array_equal(crop_border(framed), inside)


@pytest.mark.parametrize("centre", [(200, 150), (215, 140)])
def test_the_dark_around_a_round_field_is_cut_off_and_no_more_than_needed(centre):
    image = skin()
    field = cv2.circle(np.zeros(image.shape[:2], np.uint8), centre, 200, 1, -1)
    image[field == 0] = 5
    cropped = crop_border(image)
    assert (cropped.max(axis=2) < 30).mean() < 0.01
    assert cropped.shape[1] / cropped.shape[0] == pytest.approx(4 / 3, rel=0.12)
    # The largest 4 : 3 rectangle in a circle of radius 200 is 320 × 240.
    assert cropped.size >= 0.9 * 320 * 240 * 3


def test_without_a_border_nothing_is_cut_off():
    for image in (skin(), skin(lesion=140), np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 200, np.uint8)):
        np.testing.assert_array_equal(crop_border(image), image)


def test_a_lesion_that_reaches_the_edge_stays():
    image = skin()
    cv2.circle(image, (0, 150), 260, (20, 12, 12), -1)
    np.testing.assert_array_equal(crop_border(image), image)


def test_cleaning_asks_for_as_many_pixels_as_it_needs():
    assert Cleaning().cover(64) == 64
    assert Cleaning(hair_removal=True).cover(64) == 512
    assert Cleaning(hair_removal=True).cover(600) == 600
    assert Cleaning(border_crop=True).cover(600) == 1000
    image = skin()
    assert Cleaning()(image) is image
