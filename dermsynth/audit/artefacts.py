"""How often what is no lesion is in a picture: dark corners, a frame, hair, a ruler, ink, bubbles of gel.

Each is looked for by one stated rule, the same on both sides and at the same size, so that what a rule misses it misses
alike. A share is that of pictures in which the rule finds something, and not that of pictures that have it.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from dermsynth.audit.answers import Artefacts, Occurrence
from dermsynth.audit.estimates import clustered, wilson
from dermsynth.audit.sides import Side, read_images
from dermsynth.data.sets.cleaning import frame_and_corners, hair_mask
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import fit_short_side
from dermsynth.evaluation.statistics import Booleans
from dermsynth.seeds import Purpose, entropy

#: Pixels of the short side at which images are looked at, or those of the smallest of them.
SIZE = 256
#: Images a side; of more, so many are drawn.
LIMIT = 1000
# Below this size hair, the ticks of a ruler and bubbles are thinner than a pixel.
_FINE = 128
_FRAME = 0.01  # of the side
_CORNERS = 0.002  # of the picture
_HAIR = 0.004
_INK = 0.002
# Blueness b* of CIELAB; skin, pigment and blood lie above 0, and a blue-white veil above this.
_BLUE = -15
_BUBBLES = 4
_GLARE = 40  # of 255 brighter than what is around it
_TICKS = 6
_TICK_CONTRAST = 12


def has_dark_corners(image: RGB) -> bool:
    """The outside of a round field lies in three corners at least and takes 0.2 % of the picture."""
    _, corners = frame_and_corners(image)
    return bool(corners.size and corners.mean() > _CORNERS)


def has_frame(image: RGB) -> bool:
    """A dark straight frame is deeper than 1 % of the side, on any side."""
    depths, _ = frame_and_corners(image)
    return max(depths) > _FRAME * min(image.shape[:2])


def has_hair(image: RGB) -> bool:
    """Dark lines that run straight with brighter skin on both sides (`cleaning.hair_mask`) take 0.4 %."""
    return float((hair_mask(image) > 0).mean()) > _HAIR


def has_ink(image: RGB) -> bool:
    """What is bluer than b* = -15, such as a surgeon's pen or a blue sticker, takes 0.2 %."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return float((cv2.medianBlur(lab[..., 2], 5) < _BLUE).mean()) > _INK


def has_gel(image: RGB) -> bool:
    """Four small round spots or more are much brighter than what is around them, as bubbles of gel and drops are."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    width = round(min(grey.shape) / 20) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    bright = (cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, kernel) > _GLARE).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    wide, high, area = stats[1:, cv2.CC_STAT_WIDTH], stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_AREA]
    round_ones = (np.maximum(wide, high) <= 2 * np.minimum(wide, high)) & (area >= 0.4 * wide * high) & (area >= 4)
    return int(round_ones.sum()) >= _BUBBLES
