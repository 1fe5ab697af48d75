"""The sources of `prepare` and `adopt`: folders that are recognised, read, and made one list of images."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from dermsynth import lesions
from dermsynth.data.prepare import splits
from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage
from dermsynth.data.prepare.layouts.labels import plain
from dermsynth.data.prepare.layouts.recognise import LAYOUTS, read_download
from dermsynth.data.prepare.splits import Link
from dermsynth.data.sets import manifest
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError

_ARCHIVE_ID = re.compile(r"ISIC_\d+")


@dataclass(frozen=True)
class Reading:
    """One source folder, recognised and read."""

    folder: Path
    layout: Layout
    why: str
    download: Download

    def account(self) -> dict[str, Any]:
        """What dataset.json keeps of it."""
        return {
            "layout": self.layout.name,
            "why": self.why,
            "tables": {
                table.relative_to(self.folder).as_posix(): manifest.sha256_file(table) for table in self.download.tables
            },
            "images": len(self.download.images),
            "duplicates_dropped": self.download.duplicates_dropped,
            "files_without_row": self.download.files_without_row,
            "notes": list(self.download.notes),
        }


def read_source(folder: Path, layout: str, choices: Choices, among: Sequence[str] = tuple(LAYOUTS)) -> Reading:
    """Read a source folder and say which layout was taken, why, and what was left out."""
    chosen, why, download = read_download(folder, layout, choices, among)
    print(f"{folder}: layout {chosen.name} ({why}), {len(download.images)} images")
    for note in download.notes:
        print(f"  {note}")
    return Reading(folder, chosen, why, download)


def refuse_unused(readings: Sequence[Reading], choices: Choices) -> None:
    """Raise if the user said something of columns or labels that no source has: a misspelling.

    Raises:
        InputError: naming the flag.
    """
    columns = {name: column for name, column in vars(choices.columns).items() if column}
    if columns and not any(reading.layout.name == "csv" for reading in readings):
        name, column = next(iter(columns.items()))
        taken = ", ".join(reading.layout.name for reading in readings)
        raise InputError(f"--columns.{name} {column}: layout {taken} has none. Leave it out, or say --layout csv.")
    words = {
        image.record.extra["source_diagnosis"]
        for reading in readings
        if reading.layout.name in ("csv", "folders")
        for image in reading.download.images
    }
    known = {plain(word) for word in words}
    if unused := [own for own in choices.labels if plain(own) not in known]:
        raise InputError(
            f"--labels.{unused[0]} {choices.labels[unused[0]]}: no folder and no cell says {unused[0]}; found "
            f"{some(sorted(words), 20) or 'none'}."
        )


class Once(NamedTuple):
    """Every image of several sources once.

    Args:
        images: in the order in which they are met, each as the first source has it, but for its label.
        repeated: the records of their other copies, whose patients and lesions still join groups.
        contradictions: sentences on labels (and splits) that cannot both be right; the first source's is kept.
        refined: sentences on labels of which one says more than the other; that one is kept, whichever source has it.
    """

    images: list[SourceImage]
    repeated: list[Record]
    contradictions: list[str]
    refined: list[str]


def once_each(readings: Sequence[Reading], official: bool = False) -> Once:
    """Every image once, as the first source has it, with the label that says most.

    Sources may say different things of one image: a coarser diagnosis, or, as the archive is corrected, another one.
    The finer diagnosis and the known malignancy are taken, in whatever order the sources are given. Where labels
    contradict each other the first source's is taken. Either is printed and kept in dataset.json.

    Args:
        readings: of the sources, in their order.
        official: whether the sources' own splits are kept, so that these may contradict each other, too.

    Raises:
        InputError: one source has an image twice, or two sources have an image of the same name, which is not one that
            the archive gave.
    """
    kept: dict[str, tuple[SourceImage, Reading]] = {}
    once = Once([], [], [], [])
    for reading in readings:
        copies: list[str] = []
        for image in reading.download.images:
            record = image.record
            first, source = kept.setdefault(record.image_id, (image, reading))
            if first is image:
                continue
            if source is reading:
                raise InputError(
                    f"{reading.folder}: {record.image_id} occurs twice, as {first.path.name} ({_said(first.record)}, "
                    f"{first.record.split}) and {image.path.name} ({_said(record)}, {record.split}). Keep one of them."
                )
            copies.append(record.image_id)
            once.repeated.append(record)
            label = _finer(first.record, record)
            elsewhere = official and first.record.split != record.split
            words = [f"{_said(r)} in {r.split}" if elsewhere else _said(r) for r in (first.record, record)]
            said = f"{record.image_id} ({source.folder.name}: {words[0]}, {reading.folder.name}: {words[1]})"
            if elsewhere or label is None:
                once.contradictions.append(said)
            if label and label != _label(first.record):
                kept[record.image_id] = (_with_label(first, label), source)
            if label and _label(first.record) != _label(record):
                once.refined.append(said)
        if strange := [name for name in copies if not _ARCHIVE_ID.fullmatch(name)]:
            raise InputError(
                f"{reading.folder}: {len(strange)} images have the names of images in an earlier source: "
                f"{some(strange)}. Only names of the ISIC archive, as ISIC_0000000, tell that it is the same image. "
                "Rename them, or prepare the sources as separate sets."
            )
        if copies:
            print(f"{reading.folder}: {len(copies)} images left out that an earlier source holds")
    if once.contradictions:
        what = "labels or splits" if official else "labels"
        print(
            f"{len(once.contradictions)} of them have two {what}, the first of which is kept: "
            f"{some(once.contradictions)}"
        )
    if once.refined:
        print(f"{len(once.refined)} of them have a label that says more, which is kept: {some(once.refined)}")
    once.images.extend(image for image, _ in kept.values())
    return once


def links_by_copies(images: Sequence[SourceImage], repeated: Sequence[Record]) -> list[Link]:
    """Pairs of images that are of one patient or lesion, among them those that only copies in other sources say it of.

    Args:
        images: every image once.
        repeated: the records of their other copies.
    """
    if not repeated:
        return []
    records = [image.record for image in images]
    # A copy has the id of its image, and so joins the patient and lesion that either of them names.
    names = splits.groups([*records, *repeated])[: len(records)]
    first: dict[str, str] = {}
    for record, name in zip(records, names, strict=True):
        first.setdefault(name, record.image_id)
    return [
        (first[name], record.image_id)
        for record, name in zip(records, names, strict=True)
        if first[name] != record.image_id
    ]


def contradicting(records: Sequence[Record], links: Iterable[Link]) -> list[str]:
    """Sentences on images that are one photograph and have labels that cannot both be right.

    Args:
        records: the images.
        links: pairs of ids of images that are one photograph.
    """
    by_id = {record.image_id: record for record in records}
    return [
        f"{one} ({_said(by_id[one])}) = {other} ({_said(by_id[other])})"
        for one, other in dict.fromkeys(links)
        if _finer(by_id[one], by_id[other]) is None
    ]


def report_torn_lesions(records: Sequence[Record]) -> None:
    """Print how many lesions have images that are benign and others that are malignant; named by their images."""
    images: defaultdict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        if record.lesion_id and record.malignant is not None:
            images[record.lesion_id].setdefault(record.malignant, record)
    torn = [first for first in images.values() if len(first) > 1]
    if torn:
        lesions_are = "1 lesion is" if len(torn) == 1 else f"{len(torn)} lesions are"
        said = [" and ".join(f"{r.image_id} ({_said(r)})" for r in first.values()) for first in torn]
        print(f"WARNING: {lesions_are} benign by one image and malignant by another, and both are kept: {some(said)}")


def report_contradicting(sentences: Sequence[str]) -> None:
    """Print what `contradicting` gave."""
    if sentences:
        pairs = "1 pair" if len(sentences) == 1 else f"{len(sentences)} pairs"
        print(
            f"WARNING: {pairs} of images are one photograph with two labels, and both are kept: {some(sentences)}. "
            "Correct the label, or remove one of them"
        )


_Label = tuple[str, int | None]  # diagnosis, malignancy


def _label(record: Record) -> _Label:
    return record.diagnosis, record.malignant


def _with_label(image: SourceImage, label: _Label) -> SourceImage:
    diagnosis, malignant = label
    return replace(image, record=replace(image.record, diagnosis=diagnosis, malignant=malignant))


def _finer(first: Record, second: Record) -> _Label | None:
    """What two sources together say of an image, in either order; None if they contradict each other."""
    if not lesions.agree(first.diagnosis, second.diagnosis):
        return None
    fine, coarse = (second, first) if second.diagnosis in lesions.COARSE.get(first.diagnosis, ()) else (first, second)
    if fine.diagnosis in lesions.COARSE.get(coarse.diagnosis, ()):
        # The malignancy of a coarse class may be the user's choice for all of it, so it contradicts nothing.
        return fine.diagnosis, coarse.malignant if fine.malignant is None else fine.malignant
    malignancies = {first.malignant, second.malignant} - {None}
    if len(malignancies) > 1:
        return None
    return fine.diagnosis or coarse.diagnosis, next(iter(malignancies), None)


def _said(record: Record) -> str:
    return record.diagnosis or record.class_name("malignant") or "unknown"
