"""The sources of `prepare` and `adopt`: folders that are recognised, read, and made one list of images."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermsynth import lesions
from dermsynth.data import manifest, splits
from dermsynth.data.layouts.download import Choices, Download, Layout, SourceImage
from dermsynth.data.layouts.recognise import LAYOUTS, read_download
from dermsynth.data.manifest import Record
from dermsynth.data.splits import Link
from dermsynth.data.wording import some
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


def once_each(readings: Sequence[Reading], official: bool = False) -> tuple[list[SourceImage], list[Record], list[str]]:
    """Every image once, as the first source has it.

    Sources may say different things of one image: a coarser diagnosis, or, as the archive is corrected, another one.
    The first source's word is taken, so their order decides, and contradictions are printed and kept in dataset.json.

    Args:
        readings: of the sources, in their order.
        official: whether the sources' own splits are kept, so that these may contradict each other, too.

    Returns:
        The images; the records of their other copies, whose patients and lesions still join groups; contradictions.

    Raises:
        InputError: one source has an image twice, or two sources have an image of the same name, which is not one that
            the archive gave.
    """
    kept: dict[str, tuple[SourceImage, Reading]] = {}
    repeated: list[Record] = []
    contradictions: list[str] = []
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
            repeated.append(record)
            elsewhere = official and first.record.split != record.split
            if elsewhere or not _agree(first.record, record):
                words = [f"{_said(r)} in {r.split}" if elsewhere else _said(r) for r in (first.record, record)]
                said = f"{source.folder.name}: {words[0]}, {reading.folder.name}: {words[1]}"
                contradictions.append(f"{record.image_id} ({said})")
        if strange := [name for name in copies if not _ARCHIVE_ID.fullmatch(name)]:
            raise InputError(
                f"{reading.folder}: {len(strange)} images have the names of images in an earlier source: "
                f"{some(strange)}. Only names of the ISIC archive, as ISIC_0000000, tell that it is the same image. "
                "Rename them, or prepare the sources as separate sets."
            )
        if copies:
            print(f"{reading.folder}: {len(copies)} images left out that an earlier source holds")
    if contradictions:
        what = "labels or splits" if official else "labels"
        print(f"{len(contradictions)} of them have two {what}, the first of which is kept: {some(contradictions)}")
    return [image for image, _ in kept.values()], repeated, contradictions


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


def _agree(first: Record, second: Record) -> bool:
    malignancies = {first.malignant, second.malignant} - {None}
    return lesions.agree(first.diagnosis, second.diagnosis) and len(malignancies) < 2


def _said(record: Record) -> str:
    return record.diagnosis or record.class_name("malignant") or "unknown"
