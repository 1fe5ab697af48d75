"""Copies of photographs as a search must find them, and drawn pictures that are as alike as strangers."""

import cv2
import numpy as np

from dermsynth.data.sets.images import fit_short_side


def _encoded(image):
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def _cropped(image):
    height, width = image.shape[:2]
    top, left = round(height * 0.025), round(width * 0.025)
    return image[top : height - top, left : width - left].copy()


def _shifted(image, factors, offsets):
    return np.clip(image * np.array(factors) + np.array(offsets), 0, 255).astype(np.uint8)


#: How a copy is made of an image uint8 `[H, W, 3]`, by name.
KINDS = {
    "exact": lambda image: image,
    "flipped": lambda image: image[:, ::-1].copy(),
    "rotated": lambda image: np.rot90(image).copy(),
    "JPEG of quality 50": _encoded,
    "cropped by 5 %": _cropped,
    "brighter": lambda image: _shifted(image, [1.15] * 3, [12] * 3),
    "of other colours": lambda image: _shifted(image, [1.1, 0.95, 0.85], [8, 0, -8]),
    "resized": lambda image: fit_short_side(image, 64),
}


def drawn(rng, height=96, width=96):
    """A smooth picture unlike any other: a dark spot on pale skin, both with their own marks."""
    field = cv2.resize(rng.normal(0, 1, (7, 7)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = cv2.resize(rng.normal(0, 1, (24, 24)), (width, height), interpolation=cv2.INTER_CUBIC)
    rows, columns = np.mgrid[:height, :width]
    centre = rng.uniform(0.4, 0.6, 2) * (height, width)
    radius = np.hypot(rows - centre[0], columns - centre[1]) / min(height, width)
    spot = 1 / (1 + np.exp((radius - rng.uniform(0.15, 0.3) + 0.05 * field) * 40))
    grey = 200 - 110 * spot + 10 * field + 8 * fine
    return np.clip(grey[..., None] + rng.normal(0, 12, 3), 0, 255).astype(np.uint8)
