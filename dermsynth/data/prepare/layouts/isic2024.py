"""The challenge of 2024, SLICE-3D: 401,059 crops of whole-body photographs, in one HDF5 file or as JPEGs."""

from pathlib import Path

from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import find, refuse_missing
from dermsynth.data.prepare.layouts.tables import Row, age, flag, known, known_id, license_name, require, rows
from dermsynth.data.sets import hdf5

_KAGGLE = "train-metadata.csv"
# The challenge site's whole set, and the part of it that may be used commercially.
_SITE = ("ISIC_2024_Training_GroundTruth.csv", "ISIC_2024_Permissive_Training_GroundTruth.csv")
_FOLDERS = (
    "train-image/image",
    "train-image",
    "ISIC_2024_Training_Input",
    "ISIC_2024_Training_Input/ISIC_2024_Training_Input",
    "ISIC_2024_Permissive_Training_Input",
    "ISIC_2024_Permissive_Training_Input/ISIC_2024_Permissive_Training_Input",
)
_HDF5 = "train-image.hdf5"
_PEOPLE = ("sex", "age_approx", "anatom_site_general", "attribution", "copyright_license")
_NOTE = (
    "columns that tell the label are not read: lesion_id (only biopsied lesions have one), iddx_*, mel_* and "
    "what a model made of the image (tbp_lv_*)"
)


def _read(folder: Path, choices: Choices) -> Download:
    """The training set under its Kaggle or its challenge-site names.

    No column is read but those that are named here. Patients group the images, so the lesion ids, which only biopsied
    lesions have, are not missed; a diagnosis is known for few images and stays blank.
    """
    site = next((table for name in _SITE if (table := folder / name).is_file()), None)
    if (folder / _KAGGLE).is_file() or site is None:
        table, target = require(folder / _KAGGLE), "target"
        labelled = list(rows(table, "isic_id", (target, "patient_id"), _PEOPLE))
        people = {name: (row, where) for name, row, where in labelled}
        tables: tuple[Path, ...] = (table,)
    else:
        table, target = site, "malignant"
        places = (folder, *(folder / name for name in _FOLDERS))
        metadata = next((p for place in places if (p := place / "metadata.csv").is_file()), folder / "metadata.csv")
        require(metadata, "without it photographs of one patient would come to lie in several splits")
        labelled = list(rows(table, "isic_id", (target,)))
        people = {name: (row, where) for name, row, where in rows(metadata, "isic_id", ("patient_id",), _PEOPLE)}
        refuse_missing([name for name, _, _ in labelled], people, str(metadata), table)
        tables = (table, metadata)
    names = [name for name, _, _ in labelled]
    whole = folder / _HDF5
    if whole.is_file():
        members = hdf5.members(whole)
        refuse_missing(names, members, str(whole), table)
        extra = len(members) - len(names)
        files: dict[str, tuple[Path, str]] = {name: (whole, name) for name in names}
    else:
        found, extra = find(names, [folder / name for name in _FOLDERS], table)
        files = {name: (path, "") for name, path in found.items()}
    images = []
    for name, row, where in labelled:
        path, member = files[name]
        record = new_record(name, malignant=flag(row, target, where), source="isic2024", **_about(*people[name]))
        images.append(SourceImage(path, record, member))
    return Download(tuple(images), tables, files_without_row=extra, notes=(_NOTE,))


def _about(row: Row, where: str) -> dict[str, object]:
    return {
        "patient_id": known_id(row, "patient_id"),
        "sex": known(row, "sex"),
        "age_approx": age(row, "age_approx", where),
        "anatom_site_general": known(row, "anatom_site_general"),
        "license": license_name(row["copyright_license"]) or "CC-BY-NC-4.0",
        "attribution": row["attribution"]
        or "ISIC 2024 challenge, International Skin Imaging Collaboration, doi:10.34970/2024-slice-3d",
    }


ISIC2024 = Layout("isic2024", (_KAGGLE, *_SITE), _read)
