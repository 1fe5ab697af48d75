"""The closest pairs of a generated image and a train image in one picture. It shows patients: keep it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermsynth.audit.copies import Verdicts, ranking
from dermsynth.audit.seen import Seen
from dermsynth.audit.sides import square
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import read_rgb
from dermsynth.data.sets.views import view
from dermsynth.files import write_bytes_atomically
from dermsynth.grids import grid

PICTURE = "copies.png"
PAIRS = 24
_COLUMNS = 4
_SIDE = 128  # pixels of an image
_GAP = 10


def write_pairs(verdicts: Verdicts, train: Seen, out: Path) -> None:
    """Write copies.png: the likeliest copies, each turned as its train image lies, beside it, with their distance."""
    found, generated = verdicts.search, verdicts.search.seen.side
    paths, originals = generated.paths, train.side.paths
    pairs, captions = [], []
    for place in ranking(verdicts)[:PAIRS]:
        ours = np.moveaxis(square(read_rgb(paths[place]), _SIDE), -1, 0)
        likest = np.moveaxis(view(ours, int(found.nearest.view[place])), 0, -1)
        pairs.append(np.hstack([likest, square(read_rgb(originals[found.nearest.train[place]]), _SIDE)]))
        verdict = "copy" if verdicts.copies[place] else "no copy"
        captions.append(f"{verdict}, {found.distances[place, 0]:.2f}")
    limit = verdicts.result.thresholds[0].below
    said = "no threshold" if limit is None else f"a copy below {limit:.2f}"
    title = f"Generated (left), nearest train image (right), distance in pixels ({said}; other distances: copies.csv)"
    picture = io.BytesIO()
    Image.fromarray(_sheet(pairs, captions, title)).save(picture, "png")
    write_bytes_atomically(out / PICTURE, picture.getvalue())


def _sheet(pairs: Sequence[RGB], captions: Sequence[str], title: str) -> RGB:
    """Pairs `[H, 2 H, 3]` in rows, each above its caption, below a title."""
    font = ImageFont.load_default(13)
    line = 20
    cells = []
    for pair, caption in zip(pairs, captions, strict=True):
        cell = Image.new("RGB", (pair.shape[1], pair.shape[0] + line), "white")
        cell.paste(Image.fromarray(pair))
        ImageDraw.Draw(cell).text((2, pair.shape[0] + 2), caption, fill="black", font=font)
        cells.append(np.asarray(cell))
    body = grid(cells, _COLUMNS, _GAP)
    canvas = Image.new("RGB", (max(body.shape[1], 4 * 2 * _SIDE), body.shape[0] + line + _GAP), "white")
    canvas.paste(Image.fromarray(body), (0, line + _GAP))
    ImageDraw.Draw(canvas).text((2, 4), title, fill="black", font=font)
    return np.asarray(canvas)
