"""Hair and border on drawn skin, where it is known what lies under them."""

import cv2
import numpy as np
import pytest

from dermsynth.data.sets.cleaning import Cleaning, crop_border, remove_hair
from dermsynth.data.sets.images import read_rgb


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


def network(seed, mesh=14, width=2):
    """A light brown lesion with a pigment network: the borders of cells around points on a shaken grid."""
    image = skin(lesion=0)
    cv2.circle(image, (200, 150), 110, (190, 140, 115), -1)
    rng = np.random.default_rng(seed)
    cells = cv2.Subdiv2D((0, 0, 400, 300))
    for point in np.stack(np.mgrid[90:311:mesh, 40:261:mesh], axis=-1).reshape(-1, 2):
        cells.insert((point + rng.uniform(-mesh / 2, mesh / 2, 2)).tolist())
    inside = cv2.circle(np.zeros((300, 400), np.uint8), (200, 150), 105, 1, -1)
    lines = np.zeros_like(inside)
    cv2.polylines(lines, [cell.astype(np.int32) for cell in cells.getVoronoiFacetList([])[0]], True, 1, width)
    image[(lines & inside) > 0] = (120, 75, 55)
    return cv2.GaussianBlur(image, (3, 3), 0)


@pytest.mark.parametrize("mesh", [8, 11])
@pytest.mark.parametrize("seed", range(3))
def test_a_pigment_network_is_no_hair(seed, mesh):
    bare = network(seed, mesh)
    lesion = cv2.circle(np.zeros(bare.shape[:2], np.uint8), (200, 150), 110, 1, -1) > 0
    assert (remove_hair(bare) != bare).any(axis=2)[lesion].mean() < 0.05
    hairy = bare.copy()
    mask = hairs(hairy)
    changed = (remove_hair(hairy) != hairy).any(axis=2)
    assert changed[mask].mean() > 0.75
    around = cv2.dilate(mask.astype(np.uint8), np.ones((15, 15))) > 0
    assert changed[lesion & ~around].mean() < 0.05


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


def lesion_in_a_corner(image):
    cv2.circle(image, (0, 0), 130, (25, 15, 12), -1)
    cv2.circle(image, (400, 300), 130, (25, 15, 12), -1)


def lesion_at_one_side(image):
    cv2.ellipse(image, (200, 300), (190, 70), 0, 0, 360, (25, 15, 12), -1)


def thick_hairs_across_the_edge(image):
    for x in range(-60, 400, 22):
        cv2.line(image, (x, -5), (x + 90, 305), (20, 12, 10), 8)


def a_shadow_along_a_corner(image):
    cv2.fillPoly(image, [np.array([(0, 0), (180, 0), (0, 140)])], (8, 6, 6))


@pytest.mark.parametrize(
    "darken", [lesion_in_a_corner, lesion_at_one_side, thick_hairs_across_the_edge, a_shadow_along_a_corner]
)
def test_what_is_dark_at_the_edge_and_no_border_stays(darken):
    image = skin()
    darken(image)
    np.testing.assert_array_equal(crop_border(image), image)


def test_soft_round_corners_are_cut_off():
    image = skin()
    field = cv2.circle(np.zeros(image.shape[:2], np.float32), (200, 150), 225, 1, -1)
    image = (image * cv2.GaussianBlur(field, (0, 0), 8)[..., None]).astype(np.uint8)
    cropped = crop_border(image)
    assert cropped.size < 0.95 * image.size
    assert (cv2.cvtColor(cropped, cv2.COLOR_RGB2GRAY) < 40).mean() < 0.01


def test_cleaning_asks_for_as_many_pixels_as_it_needs():
    assert Cleaning().cover(64) == 64
    assert Cleaning(hair_removal=True).cover(64) == 512
    assert Cleaning(hair_removal=True).cover(600) == 600
    assert Cleaning(border_crop=True).cover(600) == 1000
    image = skin()
    assert Cleaning()(image) is image


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("isic2020/train/ISIC_5387815", 0, 0.02),  # pigment networks; of their middles 29 to 49 % were painted over
        ("isic2020/train/ISIC_7705928", 0, 0.02),
        ("isic2020/train/ISIC_9088656", 0, 0.02),
        ("isic2017/ISIC-2017_Training_Data/ISIC_0011107", 0, 0.02),
        ("isic2017/ISIC-2017_Training_Data/ISIC_0000220", 0.01, 0.15),  # with two hairs
        ("isic2020/train/ISIC_2376574", 0.15, 0.5),  # many hairs
    ],
)
def test_real_networks_stay_and_real_hairs_do_not(real_data, name, least, most):
    image = read_rgb(real_data / f"{name}.jpg")
    height, width = image.shape[:2]
    middle = np.s_[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    assert least <= (remove_hair(image) != image).any(axis=2)[middle].mean() <= most


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("isic2020/train/ISIC_4445501", 0.97, 1),  # hairs; 45 % were kept
        ("isic2020/train/ISIC_5569205", 0.97, 1),  # a shadow; 47 %
        ("isic2020/train/ISIC_7705928", 0.97, 1),  # a dark lesion in two corners
        ("isic2017/ISIC-2017_Validation_Data/ISIC_0015372", 0.97, 1),  # a dark lesion at the edge; 57 %
        ("isic2017/ISIC-2017_Training_Data/ISIC_0000098", 0.75, 0.95),  # soft corners; all was kept
        ("isic2017/ISIC-2017_Training_Data/ISIC_0000283", 0.36, 0.5),  # a round field
    ],
)
def test_real_borders_are_told_from_hairs_shadows_and_lesions(real_data, name, least, most):
    image = read_rgb(real_data / f"{name}.jpg")
    assert least <= crop_border(image).size / image.size <= most
