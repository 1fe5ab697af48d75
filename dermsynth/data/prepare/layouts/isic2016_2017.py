"""The challenges of 2016 and 2017: a folder and a table for each official part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import find
from dermsynth.data.prepare.layouts.tables import age, flag, known, require, rows
from dermsynth.errors import InputError

_PARTS_2016 = {"train": "Training", "test": "Test"}
_TASKS_2016 = ("Part3", "Part3B")  # the same labels; 3B adds masks beside the images
_CREDIT_2016 = {
    "source": "isic2016",
    "license": "CC0-1.0",
    "attribution": "ISIC 2016 challenge, International Skin Imaging Collaboration, arXiv:1605.01397",
}
_MALIGNANT_2016 = {"benign": 0, "0.0": 0, "0": 0, "malignant": 1, "1.0": 1, "1": 1}

_PARTS_2017 = {"train": "Training", "val": "Validation", "test": "Test_v2"}
_CREDIT_2017 = {
    "source": "isic2017",
    "license": "CC0-1.0",
    "attribution": "ISIC 2017 challenge, International Skin Imaging Collaboration, arXiv:1710.05006",
}


def _read_isic2016(folder: Path, choices: Choices) -> Download:
    """Part 3 of ISIC 2016: benign or malignant and no diagnosis; its tables have no header."""
    images: list[SourceImage] = []
    tables: list[Path] = []
    without_row = 0
    for split, part in _PARTS_2016.items():
        names = [f"ISBI2016_ISIC_{task}_{part}" for task in _TASKS_2016]
        name = next((n for n in names if (folder / f"{n}_GroundTruth.csv").is_file()), None)
        if name is None:
            if lonely := [n for n in names if (folder / f"{n}_Data").is_dir()]:
                require(folder / f"{lonely[0]}_GroundTruth.csv")
            continue
        truth, data = folder / f"{name}_GroundTruth.csv", folder / f"{name}_Data"
        tables.append(truth)
        table = list(rows(truth, "image", ("label",), header=("image", "label")))
        found, extra = find([image_id for image_id, _, _ in table], [data], truth)
        without_row += extra
        for image_id, row, where in table:
            if row["label"] not in _MALIGNANT_2016:
                raise InputError(f"{where}: {row['label']!r}; expected benign or malignant, 0.0 or 1.0.")
            malignant = _MALIGNANT_2016[row["label"]]
            record = new_record(image_id, split=split, malignant=malignant, **_CREDIT_2016)
            images.append(SourceImage(found[image_id], record))
    if not tables:
        require(folder / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv")
    return Download(tuple(images), tuple(tables), files_without_row=without_row)


def _read_isic2017(folder: Path, choices: Choices) -> Download:
    """Part 3 of ISIC 2017: melanoma, seborrheic keratosis, else nevus; official splits."""
    images: list[SourceImage] = []
    tables: list[Path] = []
    without_row = 0
    for split, part in _PARTS_2017.items():
        truth = folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
        data = folder / f"ISIC-2017_{part}_Data"
        if not truth.is_file() and not data.is_dir():
            continue  # A part that was not downloaded; the set then has no official split.
        require(truth)
        metadata = next((p for base in (data, folder) if (p := base / f"{data.name}_metadata.csv").is_file()), None)
        tables += [truth] if metadata is None else [truth, metadata]
        people = {} if metadata is None else dict(_people_2017(metadata))
        table = list(rows(truth, "image_id", ("melanoma", "seborrheic_keratosis")))
        found, extra = find([image_id for image_id, _, _ in table], [data], truth)
        without_row += extra
        for image_id, row, where in table:
            melanoma, keratosis = (flag(row, name, where) for name in ("melanoma", "seborrheic_keratosis"))
            if melanoma and keratosis:
                raise InputError(f"{where}: both melanoma and seborrheic_keratosis; expected one of them or none.")
            record = new_record(
                image_id,
                split=split,
                diagnosis="MEL" if melanoma else "SK" if keratosis else "NV",
                malignant=melanoma,
                **_CREDIT_2017,
                **people.get(image_id, {}),
            )
            images.append(SourceImage(found[image_id], record))
    return Download(tuple(images), tuple(tables), 0, without_row)


def _people_2017(table: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for image_id, row, where in rows(table, "image_id", ("age_approximate", "sex")):
        yield image_id, {"age_approx": age(row, "age_approximate", where), "sex": known(row, "sex")}


ISIC2016 = Layout(
    "isic2016",
    tuple(f"ISBI2016_ISIC_{task}_{part}_GroundTruth.csv" for task in _TASKS_2016 for part in _PARTS_2016.values()),
    _read_isic2016,
)
ISIC2017 = Layout(
    "isic2017",
    tuple(f"ISIC-2017_{part}_Part3_GroundTruth.csv" for part in _PARTS_2017.values()),
    _read_isic2017,
)
