"""What may be taken off a photograph before it enters a set: hair, and the dark border of the dermatoscope.

Both are off unless asked for. They help some classifiers and take evidence from others, so a set says whether it was
cleaned.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from dermsynth.data.decoding import RGB
from dermsynth.data.images import fit_short_side

# Hair is looked for at a short side of this many pixels, where it is two to six of them wide.
_WORKING_SIZE = 512
# Lengths as shares of the short side.
_HAIR_WIDTH = 1 / 30
_HAIR_LENGTH = 1 / 12
_HAIR_CONTRAST = 12
# Darker than this, of 255, and joined to the edge, is border; the darkest lesions are brighter.
_BORDER_DARKNESS = 30
_BORDER_LEFT = 0.01
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

    Args:
        image: uint8 `[H, W, 3]`, any size; hair is looked for at a short side of 512 pixels at most.
    """
    small = fit_short_side(image, _WORKING_SIZE) if min(image.shape[:2]) > _WORKING_SIZE else image
    mask = _hair(small)
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
        A view of the image; all of it if it has no such border, or if little would be left: then a dark lesion
        reaches the edge.
    """
    least = _LEAST_KEPT**2 * image.shape[0] * image.shape[1]
    dark = _border(image)
    lit = np.flatnonzero((~dark).mean(axis=1) > 1 - _LEAST_KEPT), np.flatnonzero((~dark).mean(axis=0) > 1 - _LEAST_KEPT)
    if not all(map(len, lit)):
        return image
    (top, bottom), (left, right) = ((int(n[0]), int(n[-1]) + 1) for n in lit)
    for kept in np.arange(1, _LEAST_KEPT - _STEP, -_STEP):
        trim_y, trim_x = (round((1 - kept) / 2 * length) for length in (bottom - top, right - left))
        box = np.s_[top + trim_y : bottom - trim_y, left + trim_x : right - trim_x]
        if dark[box].size < least:
            break
        if dark[box].mean() < _BORDER_LEFT:
            return image[box]
    return image


def _hair(image: RGB) -> np.ndarray:
    """Where hair lies, uint8 `[H, W]`, 255 or 0."""
    short = min(image.shape[:2])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = max(3, round(short * _HAIR_WIDTH)) | 1  # odd, so that it has a middle
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    thin = cv2.GaussianBlur(cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, kernel), (3, 3), 0)
    mask = (thin > _HAIR_CONTRAST).astype(np.uint8)
    # Pigment networks and dots are as dark and as thin; hairs are long.
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    long = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1) >= short * _HAIR_LENGTH
    slim = stats[:, cv2.CC_STAT_AREA] < 0.25 * stats[:, cv2.CC_STAT_WIDTH] * stats[:, cv2.CC_STAT_HEIGHT]
    keep = long & slim
    keep[0] = False  # the background
    return cv2.dilate(keep[labels].astype(np.uint8) * 255, np.ones((3, 3), np.uint8))


def _border(image: RGB) -> np.ndarray:
    """Where it is dark from the edge of the image inward, bool `[H, W]`."""
    dark = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) < _BORDER_DARKNESS).astype(np.uint8)
    _, labels = cv2.connectedComponents(dark, connectivity=4)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.asarray(np.isin(labels, edge[edge > 0]))
