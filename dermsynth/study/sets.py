"""What a study asks of the image sets that it is given. No torch."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from dermsynth import lesions
from dermsynth.data.sets.manifest import METADATA, read

Origin = Literal["real", "synthetic"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SAID: dict[str, str] = {"real": "real", "synthetic": "generated"}


def is_set(folder: Path) -> bool:
    """Whether a folder holds a complete image set."""
    return (folder / METADATA).is_file()


def check_set(folder: Path, origin: Origin, classes: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse a set that cannot have the place that it is given.

    Args:
        folder: of the set.
        origin: that all its images must have.
        classes: one of which some image must be of; empty where the recipes say them.
        splits: each of which must hold such an image; empty for the whole set.

    Raises:
        InputError: the set cannot be read.
        ValueError: its images are of another origin, or none is of these classes.
    """
    images = read(folder)
    if other := next((record for record in images.records if record.origin != origin), None):
        raise ValueError(
            f"image {other.image_id} of {folder} is {_SAID[other.origin]}. Name a set of {_SAID[origin]} images."
        )
    parts = {f"{split} image": images.split(split) for split in splits} or {"image": images.records}
    label_by = lesions.label_by(classes) if classes else ""
    for what, records in parts.items() if classes else ():
        if not any(record.class_name(label_by) in classes for record in records):
            raise ValueError(f"{folder} has no {what} of {', '.join(classes)}. Look at data.classes.")


def fitted_on(folder: Path) -> set[str]:
    """Hashes of the train splits that the generators of a set were fitted on; blank where nobody knows it."""
    said = {record.extra.get("train_split_sha256", "") for record in read(folder).records}
    return {split if _SHA256.fullmatch(split) else "" for split in said}


def foreign(adopted: Mapping[str, Path]) -> tuple[str, ...]:
    """Folder names of the adopted sets of which nobody knows what their generator was fitted on.

    One that says so goes through the leak rules like our own: it must be this study's train split.
    """
    unknown = [folder for folder in adopted.values() if not is_set(folder) or "" in fitted_on(folder)]
    return tuple(folder.resolve().name for folder in unknown)
