"""The challenge of 2020: patients, mostly without a diagnosis; as JPEG or DICOM."""

from pathlib import Path

from dermsynth.data.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.layouts.files import find
from dermsynth.data.layouts.labels import code_of
from dermsynth.data.layouts.tables import age, cells, flag, known, require, rows
from dermsynth.data.splits import UnionFind
from dermsynth.errors import InputError

_CREDIT = {
    "source": "isic2020",
    "license": "CC-BY-NC-4.0",
    "attribution": "ISIC 2020 challenge, International Skin Imaging Collaboration, doi:10.34970/2020-ds01",
}
# `dermsynth phantoms` draws in this layout; its images are nobody's.
_CREDIT_PHANTOMS = {"source": "phantoms", "license": "CC0-1.0", "attribution": "drawn by dermsynth"}
_TABLES = ("train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv")
# JPEG first: Kaggle has both, and `train` is its DICOM.
_FOLDERS = (
    "jpeg/train",
    "ISIC_2020_Training_JPEG/train",
    "ISIC_2020_Training_JPEG",
    "train",
    "ISIC_2020_Training_Dicom/train",
    "ISIC_2020_Training_Dicom",
)
_DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
_SITE = "anatom_site_general_challenge"
_NOS = "lentigo nos"  # "not otherwise specified": which of the lentigines is not known


def _read(folder: Path, choices: Choices) -> Download:
    """The training set under its Kaggle or its challenge-site names; the test set has no labels."""
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), folder / _TABLES[0])
    optional = ("lesion_id", "diagnosis", "sex", "age_approx", _SITE)
    everything = list(rows(require(table), "image_name", ("patient_id", "target"), optional))
    duplicates = folder / _DUPLICATES
    dropped = second_of_pairs(duplicates, {name for name, _, _ in everything}) if duplicates.is_file() else set()
    kept = [row for row in everything if row[0] not in dropped]
    found, extra = find([name for name, _, _ in kept], [folder / name for name in _FOLDERS], table, dropped)
    images: list[SourceImage] = []
    for name, row, where in kept:
        word = known(row, "diagnosis")
        code = code_of(word)
        if word and not code and word.lower() != _NOS:
            raise InputError(f"{where}: diagnosis {word!r}; expected unknown, melanoma, nevus or another known name.")
        record = new_record(
            name,
            diagnosis=code,
            malignant=flag(row, "target", where),
            patient_id=known(row, "patient_id"),
            lesion_id=known(row, "lesion_id"),
            anatom_site_general=known(row, _SITE),
            age_approx=age(row, "age_approx", where),
            sex=known(row, "sex"),
            **(_CREDIT_PHANTOMS if name.startswith("PHANTOM_") else _CREDIT),
            extra={"source_diagnosis": row["diagnosis"]},
        )
        images.append(SourceImage(found[name], record))
    tables = (table, duplicates) if duplicates.is_file() else (table,)
    return Download(tuple(images), tables, False, len(dropped), extra)


def second_of_pairs(table: Path, present: set[str]) -> set[str]:
    """The images to drop by a list of duplicate pairs; of a chain of pairs one image stays.

    A pair counts only where both images are there: a part of the set must not lose its only copy.
    """
    pairs = UnionFind()
    named: set[str] = set()
    for row, _ in cells(table, ("image_name_1", "image_name_2")):
        first, second = row["image_name_1"], row["image_name_2"]
        if first in present and second in present:
            pairs.union(first, second)
            named |= {first, second}
    return {name for name in named if pairs.find(name) != name}


ISIC2020 = Layout("isic2020", _TABLES, _read)
