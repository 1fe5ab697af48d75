"""Images side by side in one picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def grid(images: Sequence[NDArray[np.uint8]], columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """Equal-sized images in rows of `columns`, on white.

    Args:
        images: at least one, uint8 `[H, W, 3]` each.
        columns: images in a row.
        gap: white pixels between them.

    Returns:
        uint8 `[rows · (H + gap) - gap, columns · (W + gap) - gap, 3]`.
    """
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet
