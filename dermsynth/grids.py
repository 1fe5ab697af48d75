"""Images side by side in one picture."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

#: Pixels of the column that holds the names of the rows.
MARGIN = 96


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


def name_rows(sheet: NDArray[np.uint8], names: Sequence[str]) -> NDArray[np.uint8]:
    """A grid with a name at the left of each row.

    Args:
        sheet: what `grid` gave, uint8 `[H, W, 3]`.
        names: one a row.

    Returns:
        uint8 `[H, MARGIN + W, 3]`.
    """
    canvas = Image.new("RGB", (MARGIN + sheet.shape[1], sheet.shape[0]), "white")
    canvas.paste(Image.fromarray(sheet), (MARGIN, 0))
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(names):
        pen.text((4, (row + 0.5) * sheet.shape[0] / len(names)), name, fill="black", anchor="lm")
    return np.asarray(canvas)
