"""Images side by side in one picture."""

import textwrap
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SMALLEST_FONT = 10
_PADDING = 4


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
    """A grid with a name at the left of each row, broken into as many lines as its row has room for.

    Args:
        sheet: what `grid` gave, uint8 `[H, W, 3]`.
        names: one a row.

    Returns:
        uint8 `[H, margin + W, 3]`, the margin as wide as the widest line.
    """
    row = sheet.shape[0] / len(names)
    font = ImageFont.load_default(max(_SMALLEST_FONT, round(row / 24)))
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    line = pen.multiline_textbbox((0, 0), "Ag\nAg", font=font)[3] - pen.textbbox((0, 0), "Ag", font=font)[3]
    texts = [_broken(name, max(1, int(row // line))) for name in names]
    margin = 2 * _PADDING + int(max(pen.multiline_textbbox((0, 0), text, font=font)[2] for text in texts))
    canvas = Image.new("RGB", (margin + sheet.shape[1], sheet.shape[0]), "white")
    canvas.paste(Image.fromarray(sheet), (margin, 0))
    pen = ImageDraw.Draw(canvas)
    for number, text in enumerate(texts):
        pen.multiline_text((_PADDING, (number + 0.5) * row), text, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def _broken(text: str, lines: int) -> str:
    """The text in at most so many lines, as narrow as that allows."""
    for width in range(1, len(text)):
        broken = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        if len(broken) <= lines and max(map(len, broken)) <= width:
            return "\n".join(broken)
    return text
