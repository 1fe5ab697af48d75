"""Images that are the same photograph: copied, encoded again, resized, turned, mirrored, or cropped a little.

Three steps. Two perceptual hashes of each of an image's eight views, of its greys as they are and of their ranks, which
other colours change little; candidates by sorting the hashes; and a comparison of the pixels of each candidate pair
after aligning one with the other. Two photographs of one lesion are not
near-duplicates: that they belong together is what patient and lesion ids say.

The time is linear in the number of images but for the sorting, whatever they look like: a hash is compared with a fixed
number of neighbours in each of a fixed number of orders. Thousands of images of plain skin that all hash alike are
therefore not compared each with each, and among very many look-alikes a copy that was cropped as well may be missed.
Equal hashes are neighbours in every order, so however many copies there are, each is linked to another one.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dermsynth.data.sets.images import RGB, cores, read_rgb
from dermsynth.data.sets.views import VIEWS, view

Thumbnails = NDArray[np.uint8]
Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

SIDE = 64
# Rulers, gel bubbles and the dark corners of the dermatoscope look alike in different photographs.
_EDGE = 8
_CENTRE = slice(_EDGE, SIDE - _EDGE)
# The 64 lowest frequencies above the mean; a set that transposition maps to itself.
_FREQUENCIES = np.array([(u, v) for u in range(11) for v in range(11 - u) if u + v and (u, v) != (5, 5)])

# Chosen on ISIC 2017 and 2020 (docs/performance.md).
BITS_APART = 10
# Ranks spread the noise, so that their hashes differ more, of copies and far more of others.
_RANKS_BITS_APART = 14
_ORDERS = 32
_NEIGHBOURS = 32
_SHIFT = 6  # pixels of the thumbnail
# Gaussians, in pixels of the thumbnail: one hides what encoding and resizing change, one leaves only the coarse shape.
_NOISE, _COARSE = 0.7, 2.5
_FAINT = 0.1  # grey levels; encoding leaves nothing of a weaker contrast
# Correlations.
_ROUGHLY_ALIKE = 0.85
_WORTH_ALIGNING = 0.4
_ALIKE = 0.985
_ALIKE_IN_DETAIL = 0.85
_ALIKE_EVENED = 0.8
_ALIKE_AWAY_FROM_OUTLINES = 0.6
# Of the longer axis to the shorter.
_STRETCH = 1.2

_CHUNK = 4096  # images or pairs whose floats are in memory at once
_BLOCK = 64  # images or pairs that a thread takes at once


def find(thumbnails: Thumbnails, threads: int | None = None) -> list[tuple[int, int]]:
    """The pairs of near-duplicates, as places in `thumbnails`, the smaller first, sorted.

    Args:
        thumbnails: uint8 `[N, 64, 64]`, from `read_thumbnails`.
        threads: that compare at the same time; one for each core if not given.
    """
    pairs = alike(thumbnails)
    return _places(pairs[confirm(thumbnails, pairs, threads)])


def find_between(originals: Thumbnails, others: Thumbnails) -> list[tuple[int, int]]:
    """The pairs of an original, by its place in `originals`, and its near-duplicate, by its place in `others`."""
    thumbnails, first = np.concatenate([originals, others]), len(originals)
    pairs = alike(thumbnails)
    pairs = pairs[(pairs[:, 0] < first) & (pairs[:, 1] >= first)]
    return [(one, other - first) for one, other in _places(pairs[confirm(thumbnails, pairs)])]


def _places(pairs: Pairs) -> list[tuple[int, int]]:
    """Each pair once, though both hashes found it in different views."""
    return sorted({(int(one), int(other)) for one, other, _ in pairs})


def thumbnail(image: RGB) -> NDArray[np.uint8]:
    """An image `[H, W, 3]` as grey uint8 `[64, 64]`; the aspect is lost, as some copies have lost it already."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def read_thumbnails(paths: Sequence[Path], threads: int | None = None) -> Thumbnails:
    """The thumbnails of image files, uint8 `[N, 64, 64]`; 4 KB an image.

    Raises:
        InputError: a file is missing, incomplete or not an image.
    """
    found = np.empty((len(paths), SIDE, SIDE), np.uint8)

    def read(place: int) -> None:
        found[place] = thumbnail(read_rgb(paths[place]))

    _in_threads(read, len(paths), threads, "look for near-duplicates", "image")
    return found


def alike(thumbnails: Thumbnails) -> Pairs:
    """The candidates by either hash, `[M, 3]` as `candidates` gives them; a pair comes twice if in different views."""
    by_grey = candidates(hashes(thumbnails))
    by_rank = candidates(hashes(_ranks(thumbnails)), _RANKS_BITS_APART)
    images = len(thumbnails)
    codes = [(pairs[:, 0] * images + pairs[:, 1]) * VIEWS + pairs[:, 2] for pairs in (by_grey, by_rank)]
    pair, number = np.divmod(_each_once(np.concatenate(codes)), VIEWS)
    return np.stack([*np.divmod(pair, max(images, 1)), number], axis=1)


def _ranks(thumbnails: Thumbnails) -> Thumbnails:
    """The middles with their greys replaced by ranks: other colours and lights keep the order of most pixels."""
    ranked = np.zeros_like(thumbnails)
    for image, ranks in zip(thumbnails, ranked, strict=True):
        ranks[_CENTRE, _CENTRE] = cv2.equalizeHist(np.ascontiguousarray(image[_CENTRE, _CENTRE]))
    return ranked


def hashes(thumbnails: Thumbnails) -> Hashes:
    """A 64-bit hash of each of the eight views of each thumbnail, uint64 `[N, 8]`.

    The bits are the signs of the lowest frequencies of the cosine transform of the middle of the image. A mirrored
    image has the odd ones negated and a transposed one has rows and columns exchanged, so one transform gives all
    eight views.
    """
    pixels, numbers = np.arange(SIDE - 2 * _EDGE), np.arange(11)
    cosines = np.cos(np.pi / len(pixels) * (pixels + 0.5) * numbers[:, None]).astype(np.float32)
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    result = np.empty((len(thumbnails), VIEWS), np.uint64)
    for start in range(0, len(thumbnails), _CHUNK):
        middle = thumbnails[start : start + _CHUNK, _CENTRE, _CENTRE].astype(np.float32)
        spectrum = cosines @ middle @ cosines.T
        for number in range(VIEWS):
            signs = (-1.0) ** (numbers * bool(number & 2))[:, None] * (-1.0) ** (numbers * bool(number & 1))
            seen = (spectrum.transpose(0, 2, 1) if number & 4 else spectrum) * signs
            bits = seen[:, _FREQUENCIES[:, 0], _FREQUENCIES[:, 1]] > 0
            result[start : start + _CHUNK, number] = bits @ weights
    return result


def candidates(hashed: Hashes, bits_apart: int = BITS_APART) -> Pairs:
    """Pairs of images of which some views' hashes differ in few bits.

    The hashes are sorted in many orders, each beginning with another bit, and each is compared with the next few
    (Charikar 2002, section 3).

    Args:
        hashed: uint64 `[N, 8]`.
        bits_apart: the most in which two hashes may differ.

    Returns:
        int64 `[M, 3]`, sorted: the places of the two images, the smaller first, and which view of the second is the
        likest to the first as it is.
    """
    flat, images = hashed.ravel(), len(hashed)
    found = np.empty(0, np.int64)
    for first_bit in range(0, 64, 64 // _ORDERS):
        left, right = np.uint64(first_bit), np.uint64((64 - first_bit) % 64)
        turned = (flat << left) | (flat >> right)
        order = np.argsort(turned)
        turned, owner = turned[order], order // VIEWS
        new = [np.empty(0, np.int64)]
        for step in range(1, min(_NEIGHBOURS + 1, len(flat))):
            near = np.flatnonzero(np.bitwise_count(turned[step:] ^ turned[:-step]) <= bits_apart)
            one, other = owner[near], owner[near + step]
            codes = np.minimum(one, other) * images + np.maximum(one, other)
            new.append(codes[one != other])
        found = _each_once(np.concatenate([found, _each_once(np.concatenate(new))]))
    first, second = np.divmod(found, max(images, 1))
    apart = np.stack([np.bitwise_count(hashed[first, 0] ^ hashed[second, number]) for number in range(VIEWS)])
    return np.stack([first, second, apart.argmin(axis=0)], axis=1)


def _each_once(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sorted, each once. `numpy.unique` hashes instead, and takes 18 times as long for millions."""
    codes.sort()
    return codes[np.concatenate([np.ones(len(codes[:1]), bool), codes[1:] != codes[:-1]])]


def confirm(thumbnails: Thumbnails, pairs: Pairs, threads: int | None = None) -> NDArray[np.bool_]:
    """Which candidates show the same photograph, by their pixels.

    Args:
        thumbnails: uint8 `[N, 64, 64]`.
        pairs: from `alike`, `[M, 3]`.
        threads: that compare at the same time; one for each core if not given.

    Returns:
        bool `[M]`.
    """
    same = _roughly_alike(thumbnails, pairs)
    left = np.flatnonzero(same)

    def compare(place: int) -> None:
        one, other, number = pairs[left[place]]
        same[left[place]] = same_photograph(thumbnails[one], view(thumbnails[other], number))

    _in_threads(compare, len(left), threads, "compare candidates", "pair")
    return same


def same_photograph(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two thumbnails `[64, 64]`, seen the same way round, show the same photograph; the order does not matter.

    The middle of each must be found in the other, as `_is_in` says.
    """
    first, second = _smooth(one.astype(np.float32), _NOISE), _smooth(other.astype(np.float32), _NOISE)
    return _is_in(first, second) and _is_in(second, first)


def _is_in(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    """Whether the second shows the middle of the first.

    The two are aligned by an affine map (the enhanced correlation coefficient of Evangelidis & Psarakis 2008) that
    stretches little, as it would else turn one oval spot into another. They must then correlate as they are, without
    their coarse shape, and with the contrast made equal everywhere: any two dark spots in the middle of pale skin do
    the first, some the second, and only copies share the weak marks on the skin and in the spot as well. So the last
    is asked again of the half where nothing coarse has its outline. Where encoding has left no such marks nobody
    can tell, and the answer is no.
    """
    middle = first[_CENTRE, _CENTRE].copy()
    around = slice(_EDGE - _SHIFT, SIDE - _EDGE + _SHIFT)
    scores = cv2.matchTemplate(_detail(second)[around, around], _detail(first)[_CENTRE, _CENTRE], cv2.TM_CCOEFF_NORMED)
    down, right = np.unravel_index(scores.argmax(), scores.shape)
    if not scores[down, right] >= _WORTH_ALIGNING:
        return False
    warp = np.array([[1, 0, around.start + right], [0, 1, around.start + down]], np.float32)
    enough = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 1e-3)
    everywhere = np.ones(second.shape, np.uint8)
    try:
        found: Any = cv2.findTransformECC(middle, second, warp, cv2.MOTION_AFFINE, enough, everywhere, 3)[1]
    except cv2.error:  # it does not converge
        return False
    longest, shortest = np.linalg.svd(found[:, :2], compute_uv=False)
    if longest > _STRETCH * shortest:
        return False
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned: Any = cv2.warpAffine(second, found, middle.shape[::-1], flags=how, borderMode=cv2.BORDER_REFLECT)
    evened, evened_aligned, away = _evened(middle), _evened(aligned), _away_from_outlines(middle)
    return (
        _correlation(middle, aligned) >= _ALIKE
        and _correlation(_detail(middle), _detail(aligned)) >= _ALIKE_IN_DETAIL
        and _correlation(evened, evened_aligned) >= _ALIKE_EVENED
        and _correlation(evened[away], evened_aligned[away]) >= _ALIKE_AWAY_FROM_OUTLINES
    )


def _roughly_alike(thumbnails: Thumbnails, pairs: Pairs) -> NDArray[np.bool_]:
    """Which pairs correlate at 16 × 16 pixels, bool `[M]`: a look that costs a thousandth of the closer one."""
    small = thumbnails.reshape(-1, 16, 4, 16, 4).mean(axis=(2, 4), dtype=np.float32)
    small -= small.mean(axis=(1, 2), keepdims=True)
    small /= np.maximum(np.linalg.norm(small, axis=(1, 2), keepdims=True), 1e-6)
    same = np.zeros(len(pairs), bool)
    for number in range(VIEWS):
        turned = view(small, number)
        chosen = np.flatnonzero(pairs[:, 2] == number)
        for start in range(0, len(chosen), _CHUNK):
            part = chosen[start : start + _CHUNK]
            one, other = pairs[part, :2].T
            same[part] = np.einsum("nij,nij->n", small[one], turned[other]) >= _ROUGHLY_ALIKE
    return same


def _detail(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return image - _smooth(image, _COARSE)


def _evened(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The detail with the same contrast everywhere, so that a dark edge does not outweigh all that is weaker."""
    detail = _detail(image)
    return np.asarray(detail / np.sqrt(_smooth(detail**2, _COARSE) + _FAINT**2), dtype=np.float32)


def _away_from_outlines(image: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The half of the pixels where the coarse shape is the least steep, bool `[H, W]`."""
    coarse = _smooth(image, _COARSE)
    steep = np.hypot(cv2.Sobel(coarse, cv2.CV_32F, 1, 0), cv2.Sobel(coarse, cv2.CV_32F, 0, 1))
    return np.asarray(steep <= np.median(steep))


def _smooth(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's, and 0 where an image is of one colour."""
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-6))


def _in_threads(work: Callable[[int], None], total: int, threads: int | None, what: str, unit: str) -> None:
    """Call `work` with 0 to `total` - 1; OpenCV lets go of the interpreter's lock, so that threads do."""

    def block(start: int) -> int:
        stop = min(start + _BLOCK, total)
        for place in range(start, stop):
            work(place)
        return stop - start

    with (
        ThreadPoolExecutor(threads or cores()) as pool,
        tqdm(total=total, desc=what, unit=unit, mininterval=1, delay=1) as bar,
    ):
        for done in pool.map(block, range(0, total, _BLOCK)):
            bar.update(done)
