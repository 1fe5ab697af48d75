"""The table of layouts, and how a folder's layout is found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dermsynth import lesions
from dermsynth.data.prepare.layouts.archive import ARCHIVE, MILK10K
from dermsynth.data.prepare.layouts.csv_file import CSV
from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage
from dermsynth.data.prepare.layouts.folders import FOLDERS
from dermsynth.data.prepare.layouts.isic2016_2017 import ISIC2016, ISIC2017
from dermsynth.data.prepare.layouts.isic2018_2019 import HAM10000, ISIC2018, ISIC2019
from dermsynth.data.prepare.layouts.isic2020 import ISIC2020
from dermsynth.data.prepare.layouts.isic2024 import ISIC2024
from dermsynth.errors import InputError
from dermsynth.files import reading, refuse_links_out

LayoutName = Literal[
    "auto",
    "isic2016",
    "isic2017",
    "isic2018",
    "ham10000",
    "isic2019",
    "isic2020",
    "isic2024",
    "archive",
    "milk10k",
    "folders",
    "csv",
]

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        ISIC2016,
        ISIC2017,
        ISIC2018,
        HAM10000,
        ISIC2019,
        ISIC2020,
        ISIC2024,
        ARCHIVE,
        MILK10K,
        FOLDERS,
        CSV,
    )
}


def read_download(
    folder: Path,
    layout: str = "auto",
    choices: Choices = Choices(),  # noqa: B008 (it is frozen)
    among: Sequence[str] = tuple(LAYOUTS),
) -> tuple[Layout, str, Download]:
    """Recognise a download and read its tables.

    Args:
        folder: as unpacked.
        layout: the name of a layout, or auto to recognise it by its files.
        choices: what the user decides about reading.
        among: the layouts that may be recognised.

    Returns:
        The layout, why it was taken, and what was read.

    Raises:
        InputError: the folder is missing, empty, of no known layout or of several, or it holds a symbolic link that
            leads out of it, or its tables and files do not agree.
    """
    if not folder.is_dir():
        what = "a file; unpack it and give the folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}.")
    with reading(folder):
        empty = not any(folder.iterdir())
    if empty:
        raise InputError(f"{folder}: the folder is empty. Unpack a download into it.")
    refuse_links_out(folder)
    chosen, why = _recognise(folder, choices, among) if layout == "auto" else (LAYOUTS[layout], "named by --layout")
    download = chosen.read(folder, choices)
    if not download.images:
        raise InputError(f"{folder}: the tables of layout {chosen.name} hold no rows; nothing to prepare.")
    return chosen, why, _decide_keratosis(_decide_contradictions(download), choices)


def _recognise(folder: Path, choices: Choices, among: Sequence[str]) -> tuple[Layout, str]:
    layouts = [LAYOUTS[name] for name in among]
    found = [(layout, why) for layout in layouts if (why := layout.why(folder, choices))]
    if not found and choices.columns.image and CSV in layouts:
        return CSV, "its columns are named"  # its reader says what is wrong with the table
    others = [layout for name, layout in LAYOUTS.items() if name not in among]
    if not found and (other := next((o for o in others if o.why(folder, choices)), None)):
        expected = "; or ".join(f"{layout.name}: {' or '.join(layout.signs)}" for layout in layouts)
        raise InputError(
            f"{folder}: layout {other.name} ({other.why(folder, choices)}), which prepare takes as real. "
            f"Expected here {expected}."
        )
    if not found:
        looked_for = "; ".join(f"{layout.name}: {' or '.join(layout.signs)}" for layout in layouts)
        raise InputError(
            f"{folder}: no known layout. Looked in it for\n  {looked_for}.\n"
            "Give the folder that holds one of them, or say --layout folders or csv, and what its words mean."
        )
    if len(found) > 1:
        names = ", ".join(f"{layout.name} ({why})" for layout, why in found)
        raise InputError(f"{folder}: more than one layout fits: {names}. Choose one with --layout.")
    return found[0]


def _decide_contradictions(download: Download) -> Download:
    """The diagnosis decides where a table calls a carcinoma benign, or a nevus malignant; and a note that says so.

    In Kaggle's copy of ISIC 2019 in the columns of 2020 `target` is melanoma or not. What such a 0 says of lesions
    whose malignancy is disputed is as little.
    """
    said = {name: lesions.malignancy(name) for name in lesions.DIAGNOSES}
    wrong = Counter(
        f"{r.diagnosis} called {lesions.MALIGNANCY_CLASSES[r.malignant]}"
        for r in (image.record for image in download.images)
        if r.malignant is not None and said.get(r.diagnosis) not in (None, r.malignant)
    )
    if not wrong:
        return download
    melanoma_or_not = any(word.endswith(f"called {lesions.BENIGN}") for word in wrong)
    images = []
    for image in download.images:
        known = said.get(image.record.diagnosis)
        unsaid = melanoma_or_not and known is None and image.record.malignant == 0
        if unsaid or known is not None:
            image = replace(image, record=replace(image.record, malignant=known))
        images.append(image)
    counted = ", ".join(f"{word} {count}" for word, count in wrong.items())
    note = f"WARNING: {sum(wrong.values())} labels contradict the diagnosis ({counted}); the diagnosis decides"
    return replace(download, images=tuple(images), notes=(*download.notes, note))


def _decide_keratosis(download: Download, choices: Choices) -> Download:
    """Actinic keratosis as the user counts it, wherever the download itself does not say; and a note either way."""
    disputed = [i.record.diagnosis in ("AK", "AKIEC") and i.record.malignant is None for i in download.images]
    if not any(disputed):
        return download
    choice = choices.actinic_keratosis
    malignant = lesions.MALIGNANCY_CLASSES.index(choice) if choice in lesions.MALIGNANCY_CLASSES else None
    images: tuple[SourceImage, ...] = tuple(
        replace(image, record=replace(image.record, malignant=malignant)) if is_it else image
        for image, is_it in zip(download.images, disputed, strict=True)
    )
    codes = Counter(image.record.diagnosis for image, is_it in zip(images, disputed, strict=True) if is_it)
    said = "neither benign nor malignant" if malignant is None else choice
    counted = ", ".join(f"{code} {count}" for code, count in codes.items())
    note = f"actinic keratosis ({counted}) counts as {said}; experts disagree, choose by --actinic_keratosis"
    return replace(download, images=images, notes=(*download.notes, note))
