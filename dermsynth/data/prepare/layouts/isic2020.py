"""The challenge of 2020: patients, mostly without a diagnosis; as JPEG or DICOM.

Its test part has no labels at all, as the challenge keeps them. Those images are other patients', so they are of use
where no label is needed.
"""

import itertools
from dataclasses import replace
from pathlib import Path

from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import find, list_images
from dermsynth.data.prepare.layouts.labels import code_of
from dermsynth.data.prepare.layouts.tables import age, cells, flag, known, known_id, require, rows
from dermsynth.errors import InputError

_CREDIT = {
    "source": "isic2020",
    "license": "CC-BY-NC-4.0",
    "attribution": "ISIC 2020 challenge, International Skin Imaging Collaboration, doi:10.34970/2020-ds01",
}
# `dermsynth phantoms` draws in this layout; its images are nobody's.
_CREDIT_PHANTOMS = {"source": "phantoms", "license": "CC0-1.0", "attribution": "drawn by dermsynth"}
_SITE = "anatom_site_general_challenge"
_TRAINING = ("train.csv", "ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv")
# Kaggle's and the challenge site's columns of image, patient and site.
_TEST = {
    "test.csv": ("image_name", "patient_id", _SITE),
    "ISIC_2020_Test_Metadata.csv": ("image", "patient", "anatom_site_general"),
}
# JPEG first: Kaggle has both, and `train` is its DICOM.
_TRAINING_FOLDERS = (
    "jpeg/train",
    "ISIC_2020_Training_JPEG/train",
    "ISIC_2020_Training_JPEG",
    "train",
    "ISIC_2020_Training_Dicom/train",
    "ISIC_2020_Training_Dicom",
)
_TEST_FOLDERS = (
    "jpeg/test",
    "ISIC_2020_Test_JPEG/ISIC_2020_Test_Input",
    "ISIC_2020_Test_JPEG",
    "ISIC_2020_Test_Input",
    "test",
    "ISIC_2020_Test_Dicom/test",
    "ISIC_2020_Test_Dicom",
)
_DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
_NOS = "lentigo nos"  # "not otherwise specified": which of the lentigines is not known


def _read(folder: Path, choices: Choices) -> Download:
    """The parts that are there, under their Kaggle or their challenge-site names."""
    training = next((p for name in _TRAINING if (p := folder / name).is_file()), None)
    test = next((p for name in _TEST if (p := folder / name).is_file()), None)
    if training is None and test is not None:
        return _read_test(folder, test)
    labelled = _read_training(folder, require(training or folder / _TRAINING[0]))
    if test is None:
        return labelled
    if not list_images(*(folder / name for name in _TEST_FOLDERS)):
        # Kaggle's two tables come together, whichever images are downloaded.
        return replace(labelled, notes=(f"the test part is left out, as none of the images of {test.name} is there",))
    unlabelled = _read_test(folder, test)
    return replace(
        labelled,
        images=labelled.images + unlabelled.images,
        tables=labelled.tables + unlabelled.tables,
        files_without_row=labelled.files_without_row + unlabelled.files_without_row,
        notes=unlabelled.notes,
    )


def _read_training(folder: Path, table: Path) -> Download:
    optional = ("lesion_id", "diagnosis", "sex", "age_approx", _SITE)
    everything = list(rows(table, "image_name", ("patient_id", "target"), optional))
    duplicates = folder / _DUPLICATES
    dropped = second_of_pairs(duplicates, {name for name, _, _ in everything}) if duplicates.is_file() else set()
    kept = [row for row in everything if row[0] not in dropped]
    found, extra = find([name for name, _, _ in kept], [folder / name for name in _TRAINING_FOLDERS], table, dropped)
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
            patient_id=known_id(row, "patient_id"),
            lesion_id=known_id(row, "lesion_id"),
            anatom_site_general=known(row, _SITE),
            age_approx=age(row, "age_approx", where),
            sex=known(row, "sex"),
            **(_CREDIT_PHANTOMS if name.startswith("PHANTOM_") else _CREDIT),
            extra={"source_diagnosis": row["diagnosis"]},
        )
        images.append(SourceImage(found[name], record))
    tables = (table, duplicates) if duplicates.is_file() else (table,)
    return Download(tuple(images), tables, len(dropped), extra)


def _read_test(folder: Path, table: Path) -> Download:
    image, patient, site = _TEST[table.name]
    named = list(rows(table, image, (patient,), ("sex", "age_approx", site)))
    found, extra = find([name for name, _, _ in named], [folder / name for name in _TEST_FOLDERS], table)
    images = []
    for name, row, where in named:
        record = new_record(
            name,
            split="test",
            patient_id=known_id(row, patient),
            anatom_site_general=known(row, site),
            age_approx=age(row, "age_approx", where),
            sex=known(row, "sex"),
            **_CREDIT,
        )
        images.append(SourceImage(found[name], record))
    note = f"{len(images)} images of {table.name} have no label; a split by shares leaves them in test"
    return Download(tuple(images), (table,), files_without_row=extra, notes=(note,))


def second_of_pairs(table: Path, present: set[str]) -> set[str]:
    """The images to drop by a list of duplicate pairs; of a chain of pairs the first that is no pair's second stays.

    A pair counts only where both images are there: a part of the set must not lose its only copy.
    """
    from scipy.cluster.hierarchy import DisjointSet  # half a second to import

    named = ((row["image_name_1"], row["image_name_2"]) for row, _ in cells(table, ("image_name_1", "image_name_2")))
    pairs = [pair for pair in named if present.issuperset(pair)]
    seconds = {second for _, second in pairs}
    places = {name: place for place, name in enumerate(dict.fromkeys(itertools.chain.from_iterable(pairs)))}
    chains = DisjointSet(places)
    for first, second in pairs:
        chains.merge(first, second)
    kept = {min(chain, key=lambda name: (name in seconds, places[name])) for chain in chains.subsets()}
    return places.keys() - kept


ISIC2020 = Layout("isic2020", (*_TRAINING, *_TEST), _read)
