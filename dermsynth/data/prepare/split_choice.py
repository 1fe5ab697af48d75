"""Whether a set keeps the official split of its downloads, or its groups are split again."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from dermsynth.data.prepare.sources import Reading
from dermsynth.errors import InputError


def choose(
    readings: Sequence[Reading], split: Literal["auto", "official", "grouped"], folds: int | None
) -> Literal["official", "grouped"]:
    """The split to make of these sources; printed where it is not the one that somebody would expect.

    Raises:
        InputError: an official split is asked for that a source lacks, or folds of it.
    """
    without = _without_official_split(readings)
    if split == "official" and folds is not None:
        raise InputError("--folds: an official split has none. Leave --folds out, or use --split grouped.")
    if split == "official" and without:
        raise InputError(
            f"--split official: {without[0].folder} ({without[0].layout.name}) "
            "has no official train and test parts. Use --split grouped."
        )
    if split == "auto":
        split = "grouped" if without or folds is not None else "official"
        if split == "grouped" and folds is None and len(without) < len(readings):
            print(f"grouped split: {without[0].folder} ({without[0].layout.name}) has no official train and test parts")
    if split == "grouped":
        _warn_of_lost_parts(readings, folds)
    return split


def _without_official_split(readings: Sequence[Reading]) -> list[Reading]:
    """The sources that lack a train or a test part, also with the other sources of their layout.

    A challenge may be unpacked into a folder for each part. Parts of two challenges make no split: the later ones
    train on what the earlier ones tested on.
    """
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for reading in readings:
        parts[reading.layout.name] |= reading.download.parts
    return [r for r in readings if not r.download.parts or not {"train", "test"} <= parts[r.layout.name]]


def _warn_of_lost_parts(readings: Sequence[Reading], folds: int | None) -> None:
    """Say whose official val and test images are dealt with the others; without labels, test stays test by shares."""
    for reading in readings:
        records = [image.record for image in reading.download.images]
        labelled = [r for r in records if folds is not None or r.diagnosis or r.malignant is not None]
        if lost := sorted({record.split for record in labelled} & {"val", "test"}):
            print(
                f"WARNING: {reading.folder}: its official split is not kept, so images of its {' and '.join(lost)} "
                "part may be trained on"
            )
