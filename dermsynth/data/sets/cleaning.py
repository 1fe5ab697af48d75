"""What may be taken off a photograph before it enters a set: hair, and the dark border of the dermatoscope.

Both are off unless asked for. They help some classifiers and take evidence from others, so a set says whether it was
cleaned.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import fit_short_side

# Hair is looked for at a short side of this many pixels, where it is two to six of them wide.
_WORKING_SIZE = 512
# Lengths as shares of the short side.
_HAIR_WIDTH = 1 / 30
_HAIR_LENGTH = 1 / 6
_STRAIGHT_RUN = 1 / 10
_BESIDE = 1 / 40
_DIRECTIONS = 16
_HAIR_CONTRAST = 12
# Of the contrast of a hair, what the skin beside it may have on average; beside a line of a network lie others.
_CONTRAST_BESIDE = 0.3
# Darker than this, of 255, may be border, and so may be what has this share of the skin's brightness: soft corners.
_BORDER_DARKNESS = 30
_BORDER_SHARE = 0.3
# What a side's frame may be deeper in its middle than at its ends; a dark lesion bulges into the image.
_BULGE = 0.02
# Of the rectangle around the dark in a corner: 21 % lie outside a round field that just fits, half beyond a straight
# line, up to 65 % of few pixels or soft ones, and 79 % within a round lesion.
_CORNER_FILL = 0.7
_BORDER_LEFT = 0.003
# The square in a circle keeps 71 % of each side; beyond that a crop would cost more skin than it removes border.
_LEAST_KEPT = 0.6
_STEP = 0.01


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What is done to a photograph beside resizing it.

    Args:
        hair_removal: `remove_hair`.
        border_crop: `crop_border`.
    """

    hair_removal: bool = False
    border_crop: bool = False

    def cover(self, size: int) -> int:
        """Pixels that the short side must have for an image of this size to come out."""
        if not (self.hair_removal or self.border_crop):
            return size
        return max(_WORKING_SIZE, round(size / _LEAST_KEPT) if self.border_crop else size)

    def __call__(self, image: RGB) -> RGB:
        """The image without what is not wanted, uint8 `[H, W, 3]`."""
        if self.border_crop:
            image = crop_border(image)
        return remove_hair(image) if self.hair_removal else image


def remove_hair(image: RGB) -> RGB:
    """DullRazor (Lee et al. 1997): dark thin lines are found by black-hat morphology and painted over from beside.

    Pigment networks are dark thin lines, too. What tells a hair, or a ruler, is that it runs straight for longer than
    the meshes of a network are wide, and that the skin beside it is bright all the way.

    Args:
        image: uint8 `[H, W, 3]`, any size; hair is looked for at a short side of 512 pixels at most.
    """
    small = fit_short_side(image, _WORKING_SIZE) if min(image.shape[:2]) > _WORKING_SIZE else image
    mask = hair_mask(small)
    if not mask.any():
        return image
    mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    radius = max(3.0, min(image.shape[:2]) / 100)
    return np.asarray(cv2.inpaint(image, mask, radius, cv2.INPAINT_TELEA), dtype=np.uint8)


def crop_border(image: RGB) -> RGB:
    """The largest upright part, of the image's own aspect, without the dark frame or the corners of a round field.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        A view of the image; all of it if it has no such border, and never less than 36 % of it.
    """
    least = _LEAST_KEPT**2 * image.shape[0] * image.shape[1]
    dark = _border(image)
    lit = np.flatnonzero((~dark).mean(axis=1) > 1 - _LEAST_KEPT), np.flatnonzero((~dark).mean(axis=0) > 1 - _LEAST_KEPT)
    if not all(map(len, lit)):
        return image
    (top, bottom), (left, right) = ((int(n[0]), int(n[-1]) + 1) for n in lit)
    cropped = image
    for kept in np.arange(1, _LEAST_KEPT - _STEP, -_STEP):
        trim_y, trim_x = (round((1 - kept) / 2 * length) for length in (bottom - top, right - left))
        box = np.s_[top + trim_y : bottom - trim_y, left + trim_x : right - trim_x]
        if dark[box].size < least:
            break
        cropped = image[box]
        if dark[box].mean() < _BORDER_LEFT:
            break
    return cropped


def hair_mask(image: RGB) -> np.ndarray:
    """Where hair or a ruler lies, uint8 `[H, W]`, 255 or 0; see `remove_hair`."""
    short = min(image.shape[:2])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = max(3, round(short * _HAIR_WIDTH)) | 1  # odd, so that it has a middle
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    thin = cv2.GaussianBlur(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel), (3, 3), 0)
    dark = (thin > _HAIR_CONTRAST).astype(np.uint8)
    # As wide as it is: a straight run is one pixel wide.
    mask = cv2.bitwise_and(cv2.dilate(_straight_runs(thin, dark), np.ones((5, 5), np.uint8)), dark)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) >= short * _HAIR_LENGTH
    keep[0] = False  # the background
    return cv2.dilate(keep[labels].astype(np.uint8) * 255, np.ones((3, 3), np.uint8))


def _straight_runs(thin: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Where lines run straight with bright skin on both sides, uint8 `[H, W]`, 1 or 0.

    Args:
        thin: contrast of what is dark and thin, uint8 `[H, W]`.
        dark: where it is a line, uint8 `[H, W]`, 1 or 0.
    """
    short = min(thin.shape)
    half = max(1, round(short * _STRAIGHT_RUN / 2))
    found = np.zeros_like(dark)
    for angle in np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS:
        ahead = np.array([np.sin(angle), np.cos(angle)])
        run = np.round(np.arange(-half, half + 1)[:, None] * ahead).astype(int)
        beside = np.round(short * _BESIDE * ahead[::-1] * (1, -1)).astype(int)
        kernel = np.zeros((2 * half + 1, 2 * half + 1), np.uint8)
        kernel[tuple((run + half).T)] = 1
        middles = np.argwhere(cv2.erode(dark, kernel))
        both = (_mean(thin, middles, run + beside) + _mean(thin, middles, run - beside)) / 2
        lone = middles[both < _CONTRAST_BESIDE * _mean(thin, middles, run)]
        here = np.zeros_like(dark)
        here[tuple(lone.T)] = 1
        found |= cv2.dilate(here, kernel)
    return found


def _mean(image: np.ndarray, places: np.ndarray, around: np.ndarray) -> np.ndarray:
    """The mean of an image over the pixels `around` each of the places, both `[N, 2]` as row and column."""
    rows, columns = (places[:, None] + around).transpose(2, 0, 1)
    height, width = image.shape
    return np.asarray(image[rows.clip(0, height - 1), columns.clip(0, width - 1)].mean(axis=1))


def _border(image: RGB) -> np.ndarray:
    """Where a frame or the outside of a round field is, bool `[H, W]`."""
    (top, right, bottom, left), corners = frame_and_corners(image)
    height, width = image.shape[:2]
    border = np.ones((height, width), dtype=np.bool_)
    border[top : height - bottom, left : width - right] = corners
    return border


def frame_and_corners(image: RGB) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """How deep a dark frame is at the top, right, bottom and left, and where within it the outside of a round field is.

    Dark lesions, hairs and shadows that reach the edge are told from both by their shape: the inner edge of a frame is
    straight, and that of a round field curves around the middle of the image, in three corners at least.

    Args:
        image: uint8 `[H, W, 3]`.

    Returns:
        Pixels, and bool `[h, w]` of what the frame leaves; of an image that is all frame, nothing.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    dark = grey < max(_BORDER_DARKNESS, _BORDER_SHARE * float(np.percentile(grey, 75)))
    top, right, bottom, left = (_frame(np.rot90(dark, turns)) for turns in range(4))
    height, width = dark.shape
    if top + bottom >= height or left + right >= width:
        return (height, 0, 0, 0), np.zeros((0, width), dtype=np.bool_)
    return (top, right, bottom, left), _corners(dark[top : height - bottom, left : width - right])


def _frame(dark: np.ndarray) -> int:
    """How many rows from the first one inward are a dark frame."""
    depth = np.where(dark.all(axis=0), len(dark), (~dark).argmax(axis=0))
    first, middle, last = (float(np.median(part)) for part in np.array_split(depth, 3))
    if middle > (first + last) / 2 + _BULGE * len(dark):
        return 0
    return int(np.quantile(depth, 0.05))


def _corners(dark: np.ndarray) -> np.ndarray:
    """The dark outside of a round field in the corners, bool `[H, W]`; nothing if it is not in three of them."""
    height, width = dark.shape
    thick = max(3, round(min(dark.shape) * _HAIR_WIDTH)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thick, thick))
    broad = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    found = np.zeros_like(dark)
    corners = 0
    for rows in (np.s_[: height // 2], np.s_[: -height // 2 : -1]):
        for columns in (np.s_[: width // 2], np.s_[: -width // 2 : -1]):
            _, labels = cv2.connectedComponents(np.ascontiguousarray(broad[rows, columns]), connectivity=4)
            here = labels == labels[0, 0]
            deep, wide = here.any(axis=1).sum(), here.any(axis=0).sum()
            if labels[0, 0] and here.sum() <= _CORNER_FILL * deep * wide:
                found[rows, columns] = here & dark[rows, columns]
                corners += 1
    return found if corners > 2 else np.zeros_like(found)
