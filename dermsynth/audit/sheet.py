"""The closest pairs of a generated image and a train image in one picture. It shows patients: keep it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermsynth.audit.copies import FEATURES, MEASURES, PIXELS, Verdicts, ranking
from dermsynth.audit.nearest import turned
from dermsynth.audit.seen import Seen
from dermsynth.audit.sides import square
from dermsynth.data.sets.decoding import RGB
from dermsynth.data.sets.images import read_rgb
from dermsynth.files import write_bytes_atomically
from dermsynth.grids import grid

PICTURE = "copies.png"
PAIRS = 24
_COLUMNS = 4
_SIDE = 128  # pixels of an image
_GAP = 10


def write_pairs(verdicts: Verdicts, train: Seen, out: Path) -> None:
    """Write copies.png: the likeliest copies, each beside its train image, one turned as the other lies.

    The train image is the nearest in pixels, or in features where they alone call the generated one a copy.
    """
    found, generated = verdicts.search, verdicts.search.seen.side
    paths, originals = generated.paths, train.side.paths
    pairs, captions = [], []
    for place in ranking(verdicts)[:PAIRS]:
        beyond = verdicts.beyond[place]
        by_features = bool(verdicts.by_features_alone[place])
        shown = square(read_rgb(paths[place]), _SIDE)
        beside = square(read_rgb(originals[verdicts.originals[place]]), _SIDE)
        if by_features:
            beside = turned(beside[None], int(found.its_view[place]))[0]
        else:
            shown = turned(shown[None], int(found.nearest.view[place]))[0]
        pairs.append(np.hstack([shown, beside]))
        by = " and ".join(name for name, is_beyond in zip(MEASURES, beyond, strict=True) if is_beyond)
        measure = FEATURES if by_features else PIXELS
        said = f"copy by {by}" if by else f"no copy, {MEASURES[measure]}"
        captions.append(f"{said}: {found.distances[place, measure]:.3g}")
    limits = [f"{limit.measure} {limit.below:.3g}" for limit in verdicts.result.thresholds if limit.below is not None]
    title = "Generated (left) and nearest train image (right)"
    title += f". Copies lie below: {', '.join(limits)}" if limits else ""
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
