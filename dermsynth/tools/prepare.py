"""`prepare`: ISIC downloads, and other sets like them, become an image set."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from dermsynth import lesions
from dermsynth.data import splits
from dermsynth.data.layouts.download import Choices, Columns, ImageTypes, Malignancy, SourceImage
from dermsynth.data.layouts.files import some
from dermsynth.data.layouts.recognise import LayoutName
from dermsynth.data.manifest import Record
from dermsynth.errors import InputError
from dermsynth.tools.image_set import Reading, check_numbers, command, make, read_source, used_splits

_ARCHIVE_ID = re.compile(r"ISIC_\d+")


def prepare(
    sources: list[Path],
    out: Path,
    layout: LayoutName = "auto",
    size: int = 512,
    split: Literal["auto", "official", "grouped"] = "auto",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    image_types: ImageTypes = "dermoscopic",
    actinic_keratosis: Malignancy = "indeterminate",
    columns: Columns = Columns(),  # noqa: B008 (it is frozen)
    labels: dict[str, str] | None = None,
    processes: int | None = None,
) -> None:
    """Make an image set out of one or more ISIC downloads, or of any images with a folder a class or a CSV.

    The images are turned upright, resized once and stored as PNG; metadata.csv is written last, so a folder
    that has it is complete. After a kill the same command goes on where it stopped. An image that several sources
    hold, as the ISIC challenges do, is taken once, as the first of them has it.

    Args:
        sources: folders with downloads as unpacked.
        out: folder of the image set; new, or one that the same command began.
        layout: how the downloads lie on disk; auto recognises it by their files.
        size: pixels of the short side; the aspect is kept.
        split: official is the download's own; grouped deals whole patients (else lesions, else images) with
            each class in proportion; auto takes the official one where every source has one, else grouped.
        fractions: shares of the images in train, val and test of a grouped split.
        seed: of the grouped split.
        image_types: dermoscopic leaves out clinical photographs and others, where the download tells them apart
            (archive, MILK10k).
        actinic_keratosis: what AK, and AKIEC with it, counts as where the download does not say; indeterminate
            leaves it out of benign against malignant.
        columns: of a CSV that is no known download.
        labels: what the words in its label column, or the names of class folders, mean, as --labels.naevus NV; a
            diagnosis code or name, benign, malignant or unknown.
        processes: that decode at the same time; one for each core if not given.
    """
    check_numbers(size, processes)
    if not sources:
        raise InputError("SOURCE: name at least one folder with an ISIC download.")
    choices = Choices(columns, labels or {}, image_types, actinic_keratosis)
    readings = [read_source(folder, layout, choices) for folder in sources]
    found, repeated, contradictions = _once_each(readings)
    policy, records = _split(found, repeated, readings, split, fractions, seed)

    accounts = [reading.account() for reading in readings]
    settings = {
        # Names and hashes, not paths: a set may be given away.
        "sources": [folder.resolve().name for folder in sources],
        "tables": [account["tables"] for account in accounts],
        "layouts": [account["layout"] for account in accounts],
        "size": size,
        "split": policy,
        "fractions": list(fractions),
        "seed": seed,
        **asdict(choices),
    }
    flags = {
        "out": out,
        "layout": layout,
        "size": size,
        "split": split,
        "fractions": list(fractions),
        "seed": seed,
        **asdict(choices),
    }
    info = {
        "command": command("prepare", sources, **flags),
        "sources": accounts,
        "repeated": len(repeated),
        "contradictions": contradictions,
    }
    records = make(
        [replace(image, record=record) for image, record in zip(found, records, strict=True)],
        out,
        settings,
        info,
        processes,
    )
    _report(records, readings, out, policy)


def _once_each(readings: Sequence[Reading]) -> tuple[list[SourceImage], list[Record], list[str]]:
    """Every image once, as the first source has it.

    Sources may say different things of one image: a coarser diagnosis, or, as the archive is corrected, another one.
    The first source's word is taken, so their order decides, and contradictions are printed and kept in dataset.json.

    Returns:
        The images; the records of their other copies, whose patients and lesions still join groups; contradictions.

    Raises:
        InputError: two sources have an image of the same name, which is not one that the archive gave.
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
            copies.append(record.image_id)
            repeated.append(record)
            if not _agree(first.record, record):
                said = f"{source.folder.name}: {_said(first.record)}, {reading.folder.name}: {_said(record)}"
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
        print(f"{len(contradictions)} of them have two labels, the first of which is kept: {some(contradictions)}")
    return [image for image, _ in kept.values()], repeated, contradictions


def _agree(first: Record, second: Record) -> bool:
    malignancies = {first.malignant, second.malignant} - {None}
    return lesions.agree(first.diagnosis, second.diagnosis) and len(malignancies) < 2


def _said(record: Record) -> str:
    return record.diagnosis or record.class_name("malignant") or "unknown"


def _split(
    found: Sequence[SourceImage],
    repeated: Sequence[Record],
    readings: Sequence[Reading],
    split: str,
    fractions: Sequence[float],
    seed: int,
) -> tuple[str, list[Record]]:
    without = [reading for reading in readings if not reading.download.official_split]
    if split == "official" and without:
        raise InputError(
            f"--split official: {without[0].folder} ({without[0].layout.name}) "
            "does not have all three official parts. Use --split grouped."
        )
    policy = ("grouped" if without else "official") if split == "auto" else split
    if split == "auto" and 0 < len(without) < len(readings):
        print(f"grouped split: {without[0].folder} ({without[0].layout.name}) has no official train, val and test")
    records = [image.record for image in found]
    # A copy has the id of its image, and so joins the patient and lesion that either of them names.
    names = splits.groups([*records, *repeated])[: len(records)]
    if policy == "official":
        return policy, [replace(record, group=group) for record, group in zip(records, names, strict=True)]
    dealt = splits.grouped_split(records, names, fractions, seed)
    return policy, [replace(r, group=g, split=s) for r, g, s in zip(records, names, dealt, strict=True)]


def _report(records: Sequence[Record], readings: Sequence[Reading], out: Path, policy: str) -> None:
    classes = [name for name, _ in Counter(record.diagnosis or "unknown" for record in records).most_common()]
    columns = [*classes, "malignant", "benign", "images", "groups"]
    widths = [max(7, len(name) + 2) for name in columns]
    print(f"\n{'split':<8}" + "".join(f"{name:>{w}}" for name, w in zip(columns, widths, strict=True)))
    for name in [*used_splits(records), "all"]:
        chosen = [record for record in records if name in (record.split, "all")]
        counts = Counter(record.diagnosis or "unknown" for record in chosen)
        malignant = Counter(record.malignant for record in chosen)
        cells = [counts[c] for c in classes]
        cells += [malignant[1], malignant[0], len(chosen), len({record.group for record in chosen})]
        print(f"{name:<8}" + "".join(f"{cell:>{w}}" for cell, w in zip(cells, widths, strict=True)))
    patients = len({record.patient_id for record in records if record.patient_id})
    print(f"\n{policy} split; {patients or 'no'} patient ids")
    print(f"{sum(reading.download.duplicates_dropped for reading in readings)} listed duplicates dropped")
    if extra := sum(reading.download.files_without_row for reading in readings):
        print(f"{extra} image files left out that no table names")
    print(f"image set: {out}")
    # Where diagnoses are mostly unknown, malignancy is what can be learnt.
    known = [name for name in classes if name != "unknown"]
    few = 2 * sum(record.diagnosis == "" for record in records) > len(records)
    labels = "[benign, malignant]" if few else f"[{', '.join(known)}]"
    print(
        f"next: python -m dermsynth fit --config configs/tiny/vit_baseline.yaml --data.real {out} "
        f'--data.classes "{labels}" --run runs/my-first'
    )
