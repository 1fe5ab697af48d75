import cv2
import numpy as np
import pytest

from dermsynth.audit import nearest
from dermsynth.audit.nearest import SIDE, search, thumbnails, turned, worst_tile
from dermsynth.data.sets.views import VIEWS
from tests.planted import KINDS, drawn

COUNT = 60


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [drawn(rng) for _ in range(COUNT)], [drawn(rng) for _ in range(COUNT)]


def centres(images):
    return np.stack([thumbnails(image)[0] for image in images])


@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_nearer_than_strangers(pictures, kind):
    train, strangers = pictures
    owners = np.arange(COUNT)
    found = search(centres([KINDS[kind](image) for image in train]), centres(train), owners)
    others = search(centres(strangers), centres(train), owners)
    assert (found.train == owners).mean() > 0.95
    assert (found.pixels < others.pixels.min()).mean() > 0.95
    assert (found.relative < others.relative.min()).mean() > 0.9


@pytest.mark.parametrize("number", range(VIEWS))
def test_the_view_turns_the_query_as_the_original_lies(pictures, number):
    train = centres(pictures[0][:8])
    found = search(turned(train, number), train, np.arange(8))
    assert found.pixels.max() == 0
    for query, place, view in zip(turned(train, number), found.train, found.view, strict=True):
        assert (turned(query[None], int(view))[0] == train[place]).all()


@pytest.mark.parametrize("end", ["left", "right", "top", "bottom"])
def test_either_end_of_a_long_image_is_found(end):
    rng = np.random.default_rng(1)
    wide = end in ("left", "right")
    images = [drawn(rng, *((96, 128) if wide else (128, 96))) for _ in range(30)]
    cut = slice(0, 96) if end in ("left", "top") else slice(32, 128)
    train = [thumbnails(image) for image in images]
    assert {len(squares) for squares in train} == {3}
    owners = np.repeat(np.arange(30), 3)
    found = search(
        centres([image[:, cut] if wide else image[cut] for image in images]),
        np.concatenate([np.stack(squares) for squares in train]),
        owners,
    )
    assert (found.train == np.arange(30)).all()
    assert found.pixels.max() < 0.15


def test_images_that_share_all_but_a_corner_are_not_alike(pictures):
    image = pictures[0][0]
    changed = image.copy()
    changed[:32, :32] = cv2.GaussianBlur(pictures[1][5], (0, 0), 3)[40:72, 40:72]
    one, other = centres([image, changed])
    whole = np.sqrt(((nearest._standardised(one) - nearest._standardised(other)) ** 2).mean())
    assert worst_tile(one, other) > 1.5 * whole
    assert worst_tile(one, one) == 0


def test_the_relative_distance_is_of_half_the_mean_of_the_50_nearest():
    rng = np.random.default_rng(2)
    train, query = centres([drawn(rng) for _ in range(80)]), centres([drawn(rng)])
    coarse = nearest._coarse(train)
    views = np.concatenate([nearest._coarse(turned(query, number)) for number in range(VIEWS)])
    apart = np.sort(np.linalg.norm(views[:, None] - coarse[None], axis=2).min(axis=0))[:50]
    found = search(query, train, np.arange(80))
    assert found.relative[0] == pytest.approx(apart[0] / (apart.mean() / 2), rel=1e-4)


def test_each_train_image_counts_once_however_many_thumbnails():
    rng = np.random.default_rng(3)
    train, query = centres([drawn(rng) for _ in range(20)]), centres([drawn(rng)])
    once = search(query, train, np.arange(20))
    thrice = search(query, np.repeat(train, 3, axis=0), np.repeat(np.arange(20), 3))
    assert thrice.relative == pytest.approx(once.relative)


def test_images_of_one_colour():
    flat = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
    found = search(flat, flat, np.arange(2))
    assert np.isfinite(found.pixels).all()
    assert np.isfinite(found.relative).all()


def test_one_train_image():
    rng = np.random.default_rng(4)
    found = search(centres([drawn(rng)]), centres([drawn(rng)]), np.arange(1))
    assert found.train.tolist() == [0]
    assert found.relative == pytest.approx(2)
