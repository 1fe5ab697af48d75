"""The nearest train image of each query, under the eight views of a lesion, in pixels. NumPy, OpenCV, scikit-learn.

Two steps. Brute force over small grey pictures finds the nearest few of each query; those are then laid over it, larger
and in colour, and compared tile by tile. The distance is that of the worst tile (Carlini et al. 2023, section
5.1): two photographs that share pale skin are not alike where they differ. Brightness, contrast and a cast of colour
are taken out first, so that a copy is found in other colours.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import fit_short_side
from dermsynth.data.sets.views import VIEWS, view

#: Pixels of a thumbnail's side.
SIDE = 32
#: Of the nearest neighbours that a relative distance is taken from (Carlini et al. 2023).
NEIGHBOURS = 50

Thumbnails = NDArray[np.uint8]

_COARSE = 16  # pixels of a side in the first step
_CANDIDATES = 10  # that are laid over the query
_QUERIES = 1024  # at once
# The part of a query that is looked for, and how much smaller the query is made: a copy that was cropped is larger.
_PART = 24
_SCALES = (1.0, 0.95, 0.9)
_TILES = 4  # a side
_BLUR = 0.7  # pixels
_FAINT = 4.0  # grey levels; the noise of an image of one colour is not made large
_LONG = 1.1  # of the long side to the short one: an image that is longer is looked at at both ends, too


class Nearest(NamedTuple):
    """What the search finds of each of N queries.

    Args:
        train: the place of the nearest train image in pixels, int64 `[N]`.
        view: the view of the query that is most like it, int64 `[N]`.
        pixels: the distance of the worst tile, float32 `[N]`.
        relative: of the first step, the nearest's distance over half the mean of the 50 nearest, float32 `[N]`.
    """

    train: NDArray[np.int64]
    view: NDArray[np.int64]
    pixels: NDArray[np.float32]
    relative: NDArray[np.float32]


def thumbnails(image: RGB) -> list[RGB]:
    """The squares of an image that a generator may have been shown, `[SIDE, SIDE, 3]`: its centre, and both ends."""
    image = fit_short_side(image, SIDE)
    long = max(image.shape[:2])
    starts = [(long - SIDE) // 2]
    if long > _LONG * SIDE:
        starts += [0, long - SIDE]
    wide = image.shape[1] == long
    return [image[:, start : start + SIDE] if wide else image[start : start + SIDE] for start in starts]


def search(queries: Thumbnails, train: Thumbnails, owners: NDArray[np.int64]) -> Nearest:
    """The nearest train image of each query.

    Args:
        queries: uint8 `[N, SIDE, SIDE, 3]`, one each.
        train: uint8 `[M, SIDE, SIDE, 3]`, one or more each.
        owners: of which train image each of the M is, int64 `[M]`, from 0.
    """
    of_image = np.bincount(owners)
    neighbours = min(NEIGHBOURS, len(of_image))
    # So many that they are of enough images, even if all thumbnails of an image are among them.
    index = NearestNeighbors(n_neighbors=min(neighbours * of_image.max(), len(train)), algorithm="brute")
    index.fit(_coarse(train))
    found: list[tuple[int, int, float, float]] = []
    for start in range(0, len(queries), _QUERIES):
        chunk = queries[start : start + _QUERIES]
        by_view = np.concatenate([_coarse(turned(chunk, number)) for number in range(VIEWS)])
        distances, places = index.kneighbors(by_view)
        of_queries = (array.reshape(VIEWS, len(chunk), -1).swapaxes(0, 1) for array in (distances, places))
        for query, its_distances, its_places in zip(chunk, *of_queries, strict=True):
            found.append(_closest(query, its_distances, its_places, train, owners, neighbours))
    train_of, views, pixels, relative = zip(*found, strict=True)
    return Nearest(np.array(train_of), np.array(views), np.array(pixels, np.float32), np.array(relative, np.float32))


def _closest(
    query: RGB,
    distances: NDArray[np.float32],
    places: NDArray[np.int64],
    train: Thumbnails,
    owners: NDArray[np.int64],
    neighbours: int,
) -> tuple[int, int, float, float]:
    """Of one query: train image, view, distance in pixels and relative distance.

    Args:
        query: `[SIDE, SIDE, 3]`.
        distances: to the nearest thumbnails in each view, `[VIEWS, K]`.
        places: of these thumbnails, `[VIEWS, K]`.
        train: all thumbnails.
        owners: of which image each is.
        neighbours: that the relative distance is taken from.
    """
    order = np.argsort(distances, axis=None, kind="stable")
    ordered = places.ravel()[order]
    _, firsts = np.unique(owners[ordered], return_index=True)
    firsts = np.sort(firsts)[:neighbours]  # each train image once, at its nearest
    nearest = distances.ravel()[order][firsts]
    relative = float(nearest[0] / max(nearest.mean() / 2, np.finfo(np.float32).tiny))
    best = (np.inf, 0, 0)
    for first in firsts[:_CANDIDATES]:
        place, number = int(ordered[first]), int(order[first]) // places.shape[1]
        apart = worst_tile(turned(query[None], number)[0], train[place])
        best = min(best, (apart, int(owners[place]), number))
    return best[1], best[2], best[0], relative


def worst_tile(query: RGB, original: RGB) -> float:
    """How far the middle of a query is from the original where it lies best, in the worst of 4 × 4 tiles.

    Root of the mean squared difference of standardised channels; 0 for the same image, about √2 for unrelated ones.

    Args:
        query: `[SIDE, SIDE, 3]`.
        original: `[SIDE, SIDE, 3]`.
    """
    ours = _smooth(original)
    laid: list[tuple[float, RGB, RGB]] = []
    for scale in _SCALES:
        side = round(SIDE * scale)
        small: Any = cv2.resize(query, (side, side), interpolation=cv2.INTER_AREA) if side < SIDE else query
        start = (side - _PART) // 2
        part = _smooth(small)[start : start + _PART, start : start + _PART]
        scores = cv2.matchTemplate(ours, part, cv2.TM_CCOEFF_NORMED)
        top, left = np.unravel_index(int(scores.argmax()), scores.shape)
        laid.append((float(scores[top, left]), part, ours[top : top + _PART, left : left + _PART]))
    _, part, window = max(laid, key=lambda one: one[0])
    difference = (_standardised(part) - _standardised(window)) ** 2
    tile = _PART // _TILES
    tiles = difference.reshape(_TILES, tile, _TILES, tile, 3).mean(axis=(1, 3, 4))
    return float(np.sqrt(tiles.max()))


def _smooth(image: RGB) -> RGB:
    """Without the noise that encoding makes, and what a shift of half a pixel does to an edge."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _BLUR), dtype=np.uint8)


def _standardised(image: RGB) -> NDArray[np.float32]:
    """Each channel with mean 0 and standard deviation 1."""
    pixels = image.astype(np.float32)
    return (pixels - pixels.mean(axis=(0, 1))) / (pixels.std(axis=(0, 1)) + _FAINT)


def turned(images: Thumbnails, number: int) -> Thumbnails:
    """A view of images `[N, H, W, 3]`."""
    return np.moveaxis(view(np.moveaxis(images, -1, 1), number), 1, -1)


def _coarse(images: Thumbnails) -> NDArray[np.float32]:
    """Small grey pictures of mean 0 and length 1, `[N, 256]`."""
    grey = images.reshape(len(images), _COARSE, SIDE // _COARSE, _COARSE, SIDE // _COARSE, 3)
    flat = grey.mean(axis=(2, 4, 5), dtype=np.float32).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / (np.linalg.norm(flat, axis=1, keepdims=True) + _FAINT)
