"""How often what is no lesion is in a picture: dark corners, a frame, hair, a ruler, ink, bubbles of gel.

Each is looked for by one stated rule, the same on both sides and at the same size, so that what a rule misses it misses
alike. A share is that of the pictures in which the rule finds something, and not that of the pictures that have it: of
drawn lesions at 256 pixels the rules find all hair and round stops and two rulers in three (those with a line), and
call 3 % of the others so; on photographs they are wrong more often.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dermsynth.audit.answers import Artefacts, Occurrence
from dermsynth.audit.estimates import share, weighted_share, wilson
from dermsynth.audit.sides import Side, read_images
from dermsynth.data.sets.cleaning import frame_and_corners, hair_mask
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import fit_short_side
from dermsynth.evaluation.statistics import Floats
from dermsynth.seeds import Purpose, entropy

#: Pixels of the short side at which images are looked at, or those of the smallest of them.
SIZE = 256
#: Images per side; of more, so many are taken at random.
LIMIT = 1000
_FRAME = 0.01  # of the side
# The legs of a corner's triangle, of the side, and its brightness, of the median.
_CORNER, _CORNER_SHARE = 0.06, 0.6
_HAIR = 0.006  # of the picture
_INK = 0.002  # of the picture
# Of b* of CIELAB, in which skin, pigment and blood lie above 0 and a blue-white veil a little below.
_BLUE, _BLUER = -8, 15
_SPOTS = 4
# Of 255 above what is around it, and of the median.
_GLARE, _GLARE_SHARE = 35, 1.15
# Of the side: the shortest ruler, the strip beside its line in which ticks stand, and their greatest distance.
_RULER, _STRIP, _FARTHEST = 0.22, 0.05, 0.1
_LINES = 12  # that are looked at, the longest first
_LINE_CONTRAST = 12  # of 255
_REGULAR = 0.55  # correlation of the ticks with those one distance further on


def artefacts(generated: Side, train: Side, seed: int) -> Artefacts:
    """How often each is found among generated and real images.

    Args:
        generated: the generated images.
        train: the real train images.
        seed: of the choice of images where a side has more than `LIMIT`.
    """
    draw = np.random.default_rng(entropy(seed, Purpose.AUDIT, LIMIT, SIZE))
    sides = [_sampled(side, draw) for side in (generated, train)]
    size = min(SIZE, *(min(r.width, r.height) for side in sides for r in side.records))
    finders = {name: finder.find for name, finder in FINDERS.items() if size >= finder.least}
    found = []
    for side, what in zip(sides, ("generated", "real"), strict=True):
        images = (fit_short_side(image, size) for image in read_images(side, f"artefacts of {what} images"))
        found.append(np.array([[find(image) for find in finders.values()] for image in images], dtype=np.bool_))
    groups = np.unique(sides[1].groups, return_inverse=True)[1].astype(np.int64)
    weights = _as_generated(*(side.classes for side in sides))
    rows = []
    for place, artefact in enumerate(finders):
        for name in ("", *sorted({str(name) for name in sides[0].classes} - {""})):
            ours, theirs = ((side.classes == name) | (not name) for side in sides)
            hits, real_hits = found[0][ours, place], found[1][theirs, place]
            rows.append(
                Occurrence(
                    artefact=artefact,
                    class_name=name,
                    n=len(hits),
                    synthetic=wilson(int(hits.sum()), len(hits)),
                    n_real=len(real_hits),
                    real=share(real_hits, groups[theirs]) if name else weighted_share(real_hits, weights, groups),
                )
            )
    return Artefacts(size, tuple(name for name in FINDERS if name not in finders), tuple(rows))


def _as_generated(generated: NDArray[np.str_], real: NDArray[np.str_]) -> Floats:
    """Weights of the real images by which each class counts as much as among the generated ones, `[N]`."""
    names, place = np.unique(np.concatenate([generated, real]), return_inverse=True)
    ours, theirs = place[: len(generated)], place[len(generated) :]
    counts = np.bincount(ours, minlength=len(names)) / np.maximum(1, np.bincount(theirs, minlength=len(names)))
    return counts[theirs]


def _sampled(side: Side, draw: np.random.Generator) -> Side:
    if len(side) <= LIMIT:
        return side
    places = np.sort(draw.choice(len(side), LIMIT, replace=False))
    return Side(side.sets, tuple(side.images[place] for place in places), side.label_by)


def has_dark_corners(image: RGB) -> bool:
    """In three corners or more a triangle, legs 6 % of the side, has under 60 % of the picture's median brightness."""
    (top, right, bottom, left), _ = frame_and_corners(image)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[top : len(image) - bottom, left : image.shape[1] - right]
    legs = max(2, round(_CORNER * min(image.shape[:2])))
    if min(grey.shape) < 2 * legs:
        return False
    triangle = np.add.outer(np.arange(legs), np.arange(legs)) < legs
    corners = [np.rot90(grey, turns)[:legs, :legs][triangle].mean() for turns in range(4)]
    return int((np.array(corners) < _CORNER_SHARE * np.median(grey)).sum()) >= 3


def has_frame(image: RGB) -> bool:
    """A dark frame with a straight inner edge (`cleaning.frame_and_corners`) is deeper than 1 % of the side."""
    depths, _ = frame_and_corners(image)
    return max(depths) > _FRAME * min(image.shape[:2])


def has_hair(image: RGB) -> bool:
    """Dark lines that run straight with bright skin beside them (`cleaning.hair_mask`), but for a ruler, take 0.6 %."""
    mask = hair_mask(image)
    for start, end in _rulers(image):
        cv2.line(mask, start, end, 0, round(3 * _STRIP * min(image.shape[:2])))
    return float((mask > 0).mean()) > _HAIR


def has_ruler(image: RGB) -> bool:
    """A straight dark line is at least 22 % of the side long, and ticks stand beside it at equal distances."""
    return bool(_rulers(image))


def has_ink(image: RGB) -> bool:
    """What has b* (CIELAB) under -8 and 15 under the picture's median, as surgeons' pens and stickers, takes 0.2 %."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    blue = cv2.medianBlur(lab[..., 2], 3)
    return float((blue < min(_BLUE, float(np.median(blue)) - _BLUER)).mean()) > _INK


def has_bright_spots(image: RGB) -> bool:
    """Four small round spots or more outshine what is around them and the skin, as bubbles of gel and drops do."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = round(min(grey.shape) / 20) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    bright = (cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel) > _GLARE) & (grey > _GLARE_SHARE * np.median(grey))
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright.astype(np.uint8), connectivity=8)
    wide, high, area = stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_AREA]
    round_ones = (np.maximum(wide, high) <= 2 * np.minimum(wide, high)) & (area >= 0.4 * wide * high) & (area >= 3)
    return int(round_ones.sum()) >= _SPOTS


def _rulers(image: RGB) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The lines with ticks beside them, by their two ends."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    side = min(grey.shape)
    width = max(3, round(side / 30)) | 1
    thin = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, np.ones((width, width), np.uint8))
    found = cv2.HoughLinesP(
        (thin > _LINE_CONTRAST).astype(np.uint8),
        rho=1,
        theta=np.pi / 180,
        threshold=round(0.7 * _RULER * side),
        minLineLength=_RULER * side,
        maxLineGap=side / 50,
    )
    lines = sorted((np.reshape(found, (-1, 4)) if found is not None else []), key=lambda e: -np.hypot(*(e[2:] - e[:2])))
    return [
        ((int(x0), int(y0)), (int(x1), int(y1)))
        for x0, y0, x1, y1 in lines[:_LINES]
        if _ticks(thin, np.array([x0, y0]), np.array([x1, y1]))
    ]


def _ticks(thin: np.ndarray, start: np.ndarray, end: np.ndarray) -> bool:
    """Whether the profile beside a line, on one side of it, is like itself one distance of ticks further on."""
    side = min(thin.shape)
    length = round(float(np.hypot(*(end - start))))
    along = (end - start) / length
    beside = np.array([along[1], -along[0]])
    steps = start + np.arange(length)[:, None] * along
    for sign in (-1, 1):
        offsets = sign * np.arange(max(2, side // 85), round(_STRIP * side))
        places = steps[None] + offsets[:, None, None] * beside
        strip = cv2.remap(
            thin, places[..., 0].astype(np.float32), places[..., 1].astype(np.float32), cv2.INTER_LINEAR
        ).astype(np.float64)
        for rows in (strip[: max(1, len(strip) // 2)], strip):
            profile = rows.mean(axis=0)
            profile = profile - cv2.blur(profile[None], (round(_FARTHEST * side) | 1, 1))[0]
            if profile.std() < _LINE_CONTRAST / 6:
                continue
            power = np.abs(np.fft.rfft(profile, 2 * length)) ** 2
            alike = np.fft.irfft(power)[:length] / (np.arange(length, 0, -1) / length)
            alike /= alike[0]
            for lag in range(3, min(round(_FARTHEST * side), length // 4)):
                if alike[lag] > _REGULAR and alike[2 * lag] > _REGULAR * 0.8 and alike[lag // 2 : lag].min() < 0:
                    return True
    return False


class Finder(NamedTuple):
    """How an artefact is looked for, and the pixels that the short side must have for it to be seen."""

    find: Callable[[RGB], bool]
    least: int


FINDERS = {
    "dark corners": Finder(has_dark_corners, 32),
    "frame": Finder(has_frame, 32),
    "hair": Finder(has_hair, 64),
    "ruler": Finder(has_ruler, 128),
    "ink or sticker": Finder(has_ink, 32),
    "gel bubbles, drops": Finder(has_bright_spots, 128),
}
