"""Sides of an audit made of arrays, without image files."""

from pathlib import Path

import numpy as np

from dermsynth.audit.nearest import SIDE, thumbnails
from dermsynth.audit.seen import Seen
from dermsynth.audit.sides import Side
from dermsynth.data.sets.manifest import ImageSet, Record


def a_side(classes, groups=None, split="train", info=None):
    """A side of one set, an image a class name given."""
    records = tuple(
        Record(
            file_name=f"{split}{number}.png",
            image_id=f"{split}{number}",
            sha256="0" * 64,
            width=SIDE,
            height=SIDE,
            diagnosis=name,
            group=str(number if groups is None else groups[number]),
            split=split,
            source="drawn",
        )
        for number, name in enumerate(classes)
    )
    images = ImageSet(Path("drawn"), records, info or {})
    return Side((images,), tuple((0, record) for record in records), "diagnosis")


def seen(side, features=None, pictures=None, views=None):
    """What was seen of a side: its features, or those of all views, and pictures of any size."""
    count = len(side)
    if features is None:
        features = np.zeros((count, 1), np.float32)
    small = [thumbnails(image) for image in pictures] if pictures else [[np.zeros((SIDE, SIDE, 3), np.uint8)]] * count
    owners = np.repeat(np.arange(count), [len(some) for some in small])
    of_views = np.asarray(features)[None] if views is None else views
    return Seen(side, of_views.astype(np.float32), np.stack([one for some in small for one in some]), owners)
