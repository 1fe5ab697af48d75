"""One record an image; read, validate and write an image set.

An image set is a folder with `metadata.csv`, `dataset.json` and the image files. `metadata.csv` is written last and
atomically: a folder that has it is complete.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from dermsynth.data.sets import card
from dermsynth.errors import InputError
from dermsynth.files import read_json, reading, refuse_links_out, write_atomically
from dermsynth.lesions import BENIGN, DIAGNOSES, MALIGNANT, malignancy

METADATA = "metadata.csv"
DATASET = "dataset.json"
#: The mark of a generated set that is not complete; see unfinished.py.
BEGUN = ".begun-by-predict"
SPLITS = ("train", "val", "test", "unused")
ORIGINS = ("real", "synthetic")
#: How the name of a group begins in which no patient and no lesion is known; an image's id follows.
IMAGE_GROUP = "image:"
#: What no two of train, val and test may share, whatever the column `group` says, and how a message calls it.
_WHOLE = {
    "group": "belong to one patient, lesion or group",
    "patient_id": "are of one patient",
    "lesion_id": "are of one lesion",
    "sha256": "are byte for byte the same file",
}
#: A column of generated sets: why an image is not to be mixed in; blank where it is.
EXCLUDED = "excluded"
_SHA256 = re.compile(r"[0-9a-f]{64}")
#: Years; more than that is a mistake.
OLDEST = 150
REQUIRED = ("file_name", "image_id", "sha256", "width", "height", "group", "split", "origin", "source")


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a set; the columns of `metadata.csv` in their order, blank where unknown.

    Args:
        file_name: path relative to the set's folder, with `/`.
        image_id: unique in the set.
        sha256: of the image file's bytes.
        width: pixels.
        height: pixels.
        diagnosis: a code of `lesions.DIAGNOSES`, or blank.
        malignant: 0, 1 or None.
        patient_id: as the source gives it.
        lesion_id: as the source gives it.
        group: what must stay in one split: a patient, else a lesion, else `IMAGE_GROUP` and an image's id.
        split: one of `SPLITS`.
        origin: `real` or `synthetic`.
        image_manipulation: the ISIC archive's own word.
        source: the set it comes from, such as `isic2017`.
        license: SPDX-like name of the image's licence.
        attribution: whom to credit.
        sex: `male`, `female` or blank.
        age_approx: years, as the source rounds them, or None.
        anatom_site_general: the archive's word for the body site.
        skin_tone: as the source gives it.
        extra: every other column, kept as text.
    """

    file_name: str
    image_id: str
    sha256: str
    width: int
    height: int
    diagnosis: str = ""
    malignant: int | None = None
    patient_id: str = ""
    lesion_id: str = ""
    group: str = ""
    split: str = "unused"
    origin: str = "real"
    image_manipulation: str = ""
    source: str = ""
    license: str = ""
    attribution: str = ""
    sex: str = ""
    age_approx: float | None = None
    anatom_site_general: str = ""
    skin_tone: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def class_name(self, label_by: str) -> str:
        """The record's class when labels are taken by `diagnosis` or by `malignant`; blank if unknown."""
        if label_by == "diagnosis":
            return self.diagnosis
        return "" if self.malignant is None else (BENIGN, MALIGNANT)[self.malignant]


COLUMNS = tuple(f.name for f in fields(Record) if f.name != "extra")


@dataclass(frozen=True)
class ImageSet:
    """A folder of images with their records and the account of how it was made."""

    root: Path
    records: tuple[Record, ...]
    info: dict[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Record, ...]:
        """The records of one split, in the order of `metadata.csv`."""
        return tuple(r for r in self.records if r.split == name)

    def path(self, record: Record) -> Path:
        """Where the record's image lies."""
        return self.root / record.file_name


def train_split_sha256(records: Iterable[Record]) -> str:
    """Identity of the train split: a hash of the sorted `source/image_id` of its records.

    Ids and not file bytes, so that the same split prepared at 64 and at 512 pixels has one identity.
    """
    names = sorted(f"{r.source}/{r.image_id}" for r in records if r.split == "train")
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(root: Path) -> ImageSet:
    """Read and validate an image set.

    Args:
        root: the set's folder.

    Raises:
        InputError: the folder or its `metadata.csv` is missing, empty or inconsistent; the message names the row.
    """
    with reading(root):
        there, complete = root.is_dir(), (root / METADATA).is_file()
    if not there:
        raise InputError(
            f"{root}: no such folder. Make an image set with `prepare` (real images) or `predict` (generated ones)."
        )
    table = root / METADATA
    if not complete:
        raise InputError(
            f"{root}: no {METADATA} in it, so it is not a complete image set. "
            "Run `python -m dermsynth prepare` (again) with it as --out."
        )
    refuse_links_out(root)
    try:
        with reading(table), table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            missing = [name for name in REQUIRED if name not in columns]
            if missing:
                raise InputError(f"{table}: column {', '.join(missing)} is missing; found {', '.join(columns)}.")
            if twice := [name for name in COLUMNS if columns.count(name) > 1]:
                raise InputError(f"{table}: column {', '.join(twice)} occurs twice. Keep one of each.")
            records = tuple(_parse(row, f"{table}, line {reader.line_num}") for row in reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{table}: not a CSV file in UTF-8 ({error}). Save it as UTF-8, or prepare the set again."
        ) from error
    if not records:
        raise InputError(f"{table}: no rows. Prepare the set again.")
    _check_unique(records, table)
    refuse_torn(records, table)
    return ImageSet(root, records, _read_info(root / DATASET))


def write(root: Path, records: Sequence[Record], info: dict[str, Any]) -> None:
    """Write `dataset.json` and the card, then `metadata.csv`; each appears whole or not at all.

    Args:
        root: the set's folder, which already holds the images.
        records: at least one.
        info: how the set was made; `train_split_sha256` is added.

    Raises:
        InputError: an id occurs twice, or a group, patient, lesion or file lies in two splits.
    """
    table = root / METADATA
    _check_unique(records, table)
    refuse_torn(records, table)
    extra = sorted({name for r in records for name in r.extra})
    full_info = {**info, "train_split_sha256": train_split_sha256(records)}
    write_atomically(root / DATASET, json.dumps(full_info, indent=2, ensure_ascii=False) + "\n")
    for name, content in card.files(records, full_info).items():
        write_atomically(root / name, content)
    lines: list[dict[str, Any]] = [{**{name: getattr(r, name) for name in COLUMNS}, **r.extra} for r in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(table, text.getvalue())


def _read_info(file: Path) -> dict[str, Any]:
    advice = "Fix it, or prepare the set again."
    info = read_json(file, advice) if file.exists() else {}
    if not isinstance(info.get("settings", {}), dict):
        raise InputError(f"{file}: settings is {info['settings']!r}; expected an object. {advice}")
    return info


def _parse(row: dict[str, str], where: str) -> Record:
    blank = [name for name in REQUIRED if not row.get(name)]
    if blank:
        raise InputError(f"{where}: {', '.join(blank)} is blank.")
    name = PurePosixPath(row["file_name"])
    if name.is_absolute() or ".." in name.parts or set("\\\0") & set(row["file_name"]):
        raise InputError(f"{where}: file_name {row['file_name']!r} leaves the set's folder; use a relative path.")
    if row["split"] not in SPLITS:
        raise InputError(f"{where}: split {row['split']!r}; expected one of {', '.join(SPLITS)}.")
    if row["origin"] not in ORIGINS:
        raise InputError(f"{where}: origin {row['origin']!r}; expected one of {', '.join(ORIGINS)}.")
    if not _SHA256.fullmatch(row["sha256"]):
        raise InputError(f"{where}: sha256 {row['sha256']!r}; expected the 64 hexadecimal digits of the file's hash.")
    diagnosis = row.get("diagnosis") or ""
    if diagnosis and diagnosis not in DIAGNOSES:
        raise InputError(f"{where}: diagnosis {diagnosis!r}; expected blank or one of {', '.join(DIAGNOSES)}.")
    malignant = row.get("malignant") or ""
    if malignant not in ("", "0", "1"):
        raise InputError(f"{where}: malignant {malignant!r}; expected 0, 1 or blank.")
    if malignant and malignancy(diagnosis) not in (None, int(malignant)):
        raise InputError(
            f"{where}: diagnosis {diagnosis} and malignant {malignant} contradict each other. Correct one, or blank it."
        )
    try:
        numbers: dict[str, Any] = {
            "width": int(row["width"]),
            "height": int(row["height"]),
            "malignant": int(malignant) if malignant else None,
            "age_approx": float(row["age_approx"]) if row.get("age_approx") else None,
        }
    except ValueError as error:
        raise InputError(f"{where}: width, height and age_approx must be numbers ({error}).") from error
    if min(numbers["width"], numbers["height"]) < 1:
        raise InputError(f"{where}: width {row['width']}, height {row['height']}; expected at least 1 pixel.")
    age = numbers["age_approx"]
    if age is not None and not 0 <= age <= OLDEST:
        raise InputError(f"{where}: age_approx {row['age_approx']}; expected 0 to {OLDEST} years, or a blank.")
    text: dict[str, Any] = {name: row.get(name) or "" for name in COLUMNS if name not in numbers}
    text["file_name"] = str(name)  # ./a.png and a.png are one file
    # A None key holds the cells beyond the header; such a row is not trusted.
    if None in row:
        raise InputError(f"{where}: more cells than columns.")
    extra = {name: value or "" for name, value in row.items() if name not in COLUMNS}
    return Record(**text, **numbers, extra=extra)


def _check_unique(records: Sequence[Record], table: Path) -> None:
    for name in ("image_id", "file_name"):
        seen: set[str] = set()
        for record in records:
            value = getattr(record, name)
            if value in seen:
                raise InputError(f"{table}: {name} {value!r} occurs twice; ids and files must be unique.")
            seen.add(value)


def refuse_torn(records: Iterable[Record], where: Path) -> None:
    """Raise if a group, patient, lesion or file lies in several of train, val and test.

    Args:
        records: of a set.
        where: what a message names.

    Raises:
        InputError: naming two such images.
    """
    first: dict[tuple[str, str], Record] = {}
    for record in records:
        if record.split == "unused":
            continue
        for column, what in _WHOLE.items():
            value = getattr(record, column)
            if not value:
                continue
            other = first.setdefault((column, value), record)
            if other.split != record.split:
                raise InputError(
                    f"{where}: images {other.image_id} ({other.split}) and {record.image_id} ({record.split}) {what}, "
                    "but lie in different splits. Prepare the set again, or take one of them out (split unused)."
                )
