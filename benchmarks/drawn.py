"""Pictures to time with: as large and about as hard to compress as photographs of skin."""

import cv2
import numpy as np
from numpy.typing import NDArray


def photograph(rng: np.random.Generator, width: int, height: int, grain: float) -> NDArray[np.uint8]:
    """Soft colours under the grain of a camera, uint8 `[height, width, 3]`.

    Args:
        rng: draws both.
        width: pixels.
        height: pixels.
        grain: its standard deviation in grey levels.
    """
    skin = cv2.resize(rng.integers(60, 220, (8, 12, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    noise = cv2.resize(rng.normal(0, grain, (height // 2, width // 2)).astype(np.float32), (width, height))
    return np.clip(skin + noise[:, :, None], 0, 255).astype(np.uint8)
