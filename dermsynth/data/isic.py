"""ISIC downloads as people have them on disk: one small reader a layout, in one table.

A reader knows the names of its files and the meaning of their columns. It reads no pixels: it gives, for each
image, where it lies and what the manifest will say of it. Image names from a CSV are only looked up in the
listing of the source folder, so no row can point outside it.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dermsynth.data.images import SUFFIXES
from dermsynth.data.manifest import Record
from dermsynth.data.splits import UnionFind
from dermsynth.errors import InputError
from dermsynth.files import refuse_links_out

LayoutName = Literal["auto", "isic2017", "isic2020"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_UNKNOWN = ("", "unknown", "na", "nan", "none", "n/a")


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a download: its file, and its record with hash and size still blank.

    `record.split` is the official split, or `unused` where the download has none; `member` is the image's key where
    `path` is an HDF5 file.
    """

    path: Path
    record: Record
    member: str = ""


@dataclass(frozen=True)
class Download:
    """What a reader found in a folder.

    Args:
        images: in the order of the tables.
        tables: every CSV that was read.
        official_split: whether the download comes with train, val and test.
        duplicates_dropped: how many images the download's own list of duplicates removed.
        files_without_row: how many images lie there that no table names; they are left out.
    """

    images: tuple[SourceImage, ...]
    tables: tuple[Path, ...]
    official_split: bool = False
    duplicates_dropped: int = 0
    files_without_row: int = 0


@dataclass(frozen=True)
class Layout:
    """A way in which a download lies on disk.

    Args:
        name: of the layout, and the `source` of its records.
        signs: file names, any of which tells this layout.
        read: from the folder to its images.
    """

    name: str
    signs: tuple[str, ...]
    read: Callable[[Path], Download]

    def sign_in(self, folder: Path) -> str | None:
        """The first of the layout's signs that the folder holds."""
        return next((sign for sign in self.signs if (folder / sign).is_file()), None)


def read_download(folder: Path, layout: LayoutName = "auto") -> tuple[Layout, str, Download]:
    """Recognise a download and read its tables.

    Args:
        folder: as unpacked.
        layout: the name of a layout, or auto to recognise it by its files.

    Returns:
        The layout, why it was taken, and what was read.

    Raises:
        InputError: the folder is missing, empty or of no known layout, or its tables and files do not agree.
    """
    if not folder.is_dir():
        what = "a file; unpack it and give the folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}. prepare reads a folder with an ISIC download.")
    if not any(folder.iterdir()):
        raise InputError(f"{folder}: the folder is empty. Unpack an ISIC download into it.")
    chosen, why = _recognise(folder) if layout == "auto" else (LAYOUTS[layout], "named by --layout")
    refuse_links_out(folder)
    download = chosen.read(folder)
    if not download.images:
        raise InputError(f"{folder}: the tables of layout {chosen.name} hold no rows; nothing to prepare.")
    return chosen, why, download


def _recognise(folder: Path) -> tuple[Layout, str]:
    found = [(layout, sign) for layout in LAYOUTS.values() if (sign := layout.sign_in(folder))]
    if not found:
        looked_for = "\n".join(f"  {layout.name}: {' or '.join(layout.signs)}" for layout in LAYOUTS.values())
        raise InputError(
            f"{folder}: no known ISIC layout. Looked in it for\n{looked_for}\nGive the folder that holds one of them."
        )
    if len(found) > 1:
        names = ", ".join(f"{layout.name} ({sign})" for layout, sign in found)
        raise InputError(f"{folder}: more than one layout lies here: {names}. Choose one with --layout.")
    return found[0][0], f"found {found[0][1]}"


# ------------------------------------------------------------------------------------------------ ISIC 2017

_PARTS_2017 = {"train": "Training", "val": "Validation", "test": "Test_v2"}


def _read_isic2017(folder: Path) -> Download:
    """Part 3 of the ISIC 2017 challenge: melanoma, seborrheic keratosis, else nevus; official splits."""
    images: list[SourceImage] = []
    tables: list[Path] = []
    parts, without_row = 0, 0
    for split, part in _PARTS_2017.items():
        truth = folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
        data = folder / f"ISIC-2017_{part}_Data"
        if not truth.is_file() and not data.is_dir():
            continue  # A part that was not downloaded; the set then has no official split.
        _require(truth)
        metadata = next((p for base in (data, folder) if (p := base / f"{data.name}_metadata.csv").is_file()), None)
        tables += [truth] if metadata is None else [truth, metadata]
        parts += 1
        people = {} if metadata is None else dict(_people_2017(metadata))
        files = _list_images(data)
        rows = list(_rows(truth, "image_id", ("melanoma", "seborrheic_keratosis")))
        found = _find(files, [image_id for image_id, _, _ in rows], [data], truth)
        for image_id, row, where in rows:
            melanoma, keratosis = (_flag(row, name, where) for name in ("melanoma", "seborrheic_keratosis"))
            if melanoma and keratosis:
                raise InputError(f"{where}: both melanoma and seborrheic_keratosis; expected one of them or none.")
            record = _record(
                image_id,
                split=split,
                source="isic2017",
                diagnosis="MEL" if melanoma else "SK" if keratosis else "NV",
                malignant=melanoma,
                license="CC0-1.0",
                attribution="ISIC 2017 challenge, International Skin Imaging Collaboration, arXiv:1710.05006",
                **people.get(image_id, {}),
            )
            images.append(SourceImage(found[image_id], record))
        without_row += len(files) - len(rows)
    return Download(tuple(images), tuple(tables), parts == len(_PARTS_2017), 0, without_row)


def _people_2017(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for image_id, row, where in _rows(table, "image_id", ("age_approximate", "sex")):
        yield image_id, {"age_approx": _age(row, "age_approximate", where), "sex": _known(row, "sex")}


# ------------------------------------------------------------------------------------------------ ISIC 2020

_CREDIT_2020 = {
    "source": "isic2020",
    "license": "CC-BY-NC-4.0",
    "attribution": "ISIC 2020 challenge, International Skin Imaging Collaboration, doi:10.34970/2020-ds01",
}
# `dermsynth phantoms` draws in this layout; its images are nobody's.
_CREDIT_PHANTOMS = {"source": "phantoms", "license": "CC0-1.0", "attribution": "drawn by dermsynth"}
_TABLES_2020 = ("train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv")
_FOLDERS_2020 = ("jpeg/train", "train", "ISIC_2020_Training_JPEG/train", "ISIC_2020_Training_JPEG")
_DUPLICATES_2020 = "ISIC_2020_Training_Duplicates.csv"
_SITE_2020 = "anatom_site_general_challenge"
_DIAGNOSES_2020 = {
    "melanoma": "MEL",
    "nevus": "NV",
    "seborrheic keratosis": "SK",
    "lichenoid keratosis": "LK",
    "solar lentigo": "SL",
    "cafe-au-lait macule": "CALM",
    "atypical melanocytic proliferation": "AMP",
    "lentigo nos": "",  # "not otherwise specified": which of the lentigines is not known
}


def _read_isic2020(folder: Path) -> Download:
    """The ISIC 2020 training set under its Kaggle or its challenge-site names; the test set has no labels."""
    table = next((folder / name for name in _TABLES_2020 if (folder / name).is_file()), folder / _TABLES_2020[0])
    rows = list(_rows(_require(table), "image_name", ("patient_id", "target")))
    duplicates = folder / _DUPLICATES_2020
    dropped = _second_of_pairs(duplicates, {name for name, _, _ in rows}) if duplicates.is_file() else set()
    places = [folder / name for name in _FOLDERS_2020]
    files: dict[str, Path] = next(filter(None, map(_list_images, places)), {})
    kept = [row for row in rows if row[0] not in dropped]
    found = _find(files, [name for name, _, _ in kept], places, table)
    images: list[SourceImage] = []
    for name, row, where in kept:
        word = _known(row, "diagnosis").lower()
        if word and word not in _DIAGNOSES_2020:
            raise InputError(f"{where}: diagnosis {word!r}; expected unknown or one of {', '.join(_DIAGNOSES_2020)}.")
        record = _record(
            name,
            diagnosis=_DIAGNOSES_2020.get(word, ""),
            malignant=_flag(row, "target", where),
            patient_id=_known(row, "patient_id"),
            lesion_id=_known(row, "lesion_id"),
            anatom_site_general=_known(row, _SITE_2020),
            age_approx=_age(row, "age_approx", where),
            sex=_known(row, "sex"),
            **(_CREDIT_PHANTOMS if name.startswith("PHANTOM_") else _CREDIT_2020),
            extra={"source_diagnosis": row.get("diagnosis", "")},
        )
        images.append(SourceImage(found[name], record))
    tables = (table, duplicates) if duplicates.is_file() else (table,)
    return Download(tuple(images), tables, False, len(dropped), len(files.keys() - {name for name, _, _ in rows}))


# ------------------------------------------------------------------------------------------------ shared

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "isic2017",
            tuple(f"ISIC-2017_{part}_Part3_GroundTruth.csv" for part in _PARTS_2017.values()),
            _read_isic2017,
        ),
        Layout("isic2020", _TABLES_2020, _read_isic2020),
    )
}


def _record(image_id: str, **fields: Any) -> Record:
    """A record whose image is not prepared yet: hash and size are still blank."""
    return Record(f"images/{image_id}.png", image_id, sha256="", width=0, height=0, **fields)


def _require(table: Path) -> Path:
    if not table.is_file():
        raise InputError(f"{table}: no such file, and this layout needs it. Download it beside the images.")
    return table


def _rows(table: Path, key: str, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str], str]]:
    """The rows of a CSV whose `key` column names the image: name, row, and where it stands for messages."""
    seen: set[str] = set()
    for row, where in _cells(table, (key, *needed)):
        name = row[key]
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{where}: {key} {name!r}; expected an image name without folder or blanks, as ISIC_0000000."
            )
        if name in seen:
            raise InputError(f"{where}: {key} {name!r} occurs twice. Keep one row an image.")
        seen.add(name)
        yield name, row, where


def _cells(table: Path, needed: Sequence[str]) -> Iterator[tuple[dict[str, str], str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            missing = [name for name in needed if name not in columns]
            if missing:
                raise InputError(
                    f"{table}: column {', '.join(missing)} is missing; found {', '.join(columns) or 'none'}. "
                    "Download the table again, or choose another --layout."
                )
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: {len(columns)} cells expected as in the header. Mend the row.")
                yield {name: value.strip() for name, value in row.items()}, where
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error}). Download it again.") from error


def _known(row: dict[str, str], column: str) -> str:
    """The cell, or blank where the column is missing or the cell says that nothing is known."""
    value = row.get(column, "")
    return "" if value.lower() in _UNKNOWN else value


def _flag(row: dict[str, str], column: str, where: str) -> int:
    if row[column] not in ("0", "1", "0.0", "1.0"):
        raise InputError(f"{where}: {column} {row[column]!r}; expected 0 or 1.")
    return int(row[column][0])


def _age(row: dict[str, str], column: str, where: str) -> float | None:
    value = _known(row, column)
    try:
        return float(value) if value else None
    except ValueError as error:
        raise InputError(f"{where}: {column} {value!r}; expected a number of years or a blank.") from error


def _list_images(folder: Path) -> dict[str, Path]:
    """Image files that lie directly in a folder, by name without suffix; superpixel masks are not images."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or path.stem.endswith("_superpixels"):
            continue
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} lies beside it. Keep one file an image.")
        files[path.stem] = path
    return files


def _find(files: dict[str, Path], names: Sequence[str], places: Sequence[Path], table: Path) -> dict[str, Path]:
    missing = [name for name in names if name not in files]
    if missing:
        raise InputError(
            f"{table}: {len(missing)} of {len(names)} images that it names are missing: {some(missing)}. "
            f"Looked for {', '.join(SUFFIXES)} in {' and '.join(map(str, places))}. "
            "Finish the download, or remove their rows."
        )
    return {name: files[name] for name in names}


def _second_of_pairs(table: Path, present: set[str]) -> set[str]:
    """The images to drop by a list of duplicate pairs; of a chain of pairs one image stays.

    A pair counts only where both images are there: a part of the set must not lose its only copy.
    """
    pairs = UnionFind()
    named: set[str] = set()
    for row, _ in _cells(table, ("image_name_1", "image_name_2")):
        first, second = row["image_name_1"], row["image_name_2"]
        if first in present and second in present:
            pairs.union(first, second)
            named |= {first, second}
    return {name for name in named if pairs.find(name) != name}


def some(names: Iterable[str], first: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    everything = list(names)
    more = len(everything) - first
    return ", ".join(everything[:first]) + (f" and {more} more" if more > 0 else "")
