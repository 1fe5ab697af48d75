"""A folder a class, as other data sets and most synthetic ones come."""

from collections import Counter
from pathlib import Path

from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import (
    every_image,
    holds_images,
    image_ids,
    list_images,
    passed_over,
    subfolders,
)
from dermsynth.data.prepare.layouts.labels import Label, label_of, refuse_unknown
from dermsynth.data.prepare.layouts.tables import split_of
from dermsynth.data.sets.images import SUFFIXES
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError


def _class_folders(folder: Path, choices: Choices) -> list[tuple[Path, str]]:
    """Folders that hold images or are named as a class, each with its split: here, or in train, val and test."""
    found = []
    for outer in subfolders(folder):
        split = split_of(outer.name)
        found += [(inner, split) for inner in subfolders(outer)] if split else [(outer, "unused")]
    return [(place, split) for place, split in found if holds_images(place) or label_of(place.name, choices.labels)]


def _fits(folder: Path, choices: Choices) -> str | None:
    places = _class_folders(folder, choices)
    if not places or any(label_of(place.name, choices.labels) is None for place, _ in places):
        return None
    return f"found folders {', '.join(sorted({place.name for place, _ in places}))}"


def _read(folder: Path, choices: Choices) -> Download:
    """The folder's name is the label of every image in it; nobody knows whose lesions they are."""
    files: list[tuple[Path, str, Label]] = []
    unknown: Counter[str] = Counter()
    notes: list[str] = []
    for place, split in _class_folders(folder, choices):
        here = list_images(place).values()
        others = passed_over(place)
        if not here:
            held = f"it holds {others}" if others else "it is empty"
            raise InputError(f"{place}: no image in this class folder ({held}). Only {', '.join(SUFFIXES)} are read.")
        if others:
            notes.append(f"{place.name}: files passed over ({others}); only {', '.join(SUFFIXES)} are read")
        label = label_of(place.name, choices.labels)
        if label is None:
            unknown[place.name] = len(here)
        else:
            files += [(path, split, label) for path in here]
    refuse_unknown(unknown, str(folder))
    taken = {path.relative_to(folder).as_posix() for path, _, _ in files}
    if left := [str(path) for path in every_image(folder) if str(path) not in taken]:
        which = "1 image passed over, which does" if len(left) == 1 else f"{len(left)} images passed over, which do"
        notes.append(f"{which} not lie directly in a class folder: {some(left)}")
    if not files:
        raise InputError(f"{folder}: no folders with images in it. Layout folders expects one folder a class.")
    images = [
        SourceImage(
            path,
            new_record(
                image_id,
                split=split,
                source=folder.resolve().name,
                diagnosis=label.diagnosis,
                malignant=label.malignant,
                extra={"source_diagnosis": path.parent.name},
            ),
        )
        for image_id, (path, split, label) in zip(
            image_ids([path.relative_to(folder) for path, _, _ in files]), files, strict=True
        )
    ]
    return Download(tuple(images), (), notes=tuple(notes))


FOLDERS = Layout("folders", ("folders with images, named by code or diagnosis, or benign and malignant",), _read, _fits)
