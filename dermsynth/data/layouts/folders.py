"""A folder a class, as other data sets and most synthetic ones come."""

from collections import Counter
from pathlib import Path

from dermsynth.data.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.layouts.files import holds_images, image_ids, list_images, subfolders
from dermsynth.data.layouts.labels import Label, label_of, refuse_unknown
from dermsynth.data.layouts.tables import split_of
from dermsynth.errors import InputError


def _class_folders(folder: Path) -> list[tuple[Path, str]]:
    """Folders that hold images, each with its split: those of the folder, or of its folders train, val and test."""
    found = []
    for outer in subfolders(folder):
        split = split_of(outer.name)
        found += [(inner, split) for inner in subfolders(outer)] if split else [(outer, "unused")]
    return [(place, split) for place, split in found if holds_images(place)]


def _fits(folder: Path, choices: Choices) -> str | None:
    places = _class_folders(folder)
    if not places or any(label_of(place.name, choices.labels) is None for place, _ in places):
        return None
    return f"found folders {', '.join(sorted({place.name for place, _ in places}))}"


def _read(folder: Path, choices: Choices) -> Download:
    """The folder's name is the label of every image in it; nobody knows whose lesions they are."""
    files: list[tuple[Path, str, Label]] = []
    unknown: Counter[str] = Counter()
    for place, split in _class_folders(folder):
        here = list_images(place).values()
        label = label_of(place.name, choices.labels)
        if label is None:
            unknown[place.name] = len(here)
        else:
            files += [(path, split, label) for path in here]
    refuse_unknown(unknown, str(folder))
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
    return Download(tuple(images), ())


FOLDERS = Layout("folders", ("folders with images, named by code or diagnosis, or benign and malignant",), _read, _fits)
