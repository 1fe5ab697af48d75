"""What `isic image download` leaves, and MILK10k: images of several kinds, told apart by `image_type`."""

from collections import Counter
from pathlib import Path

from dermsynth import lesions
from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import find, subfolders
from dermsynth.data.prepare.layouts.labels import code_of
from dermsynth.data.prepare.layouts.tables import (
    Row,
    age,
    cells,
    has_column,
    known,
    known_id,
    license_name,
    one_of,
    require,
    rows,
)
from dermsynth.errors import InputError

_Named = tuple[str, Row, str]

_TABLES_ARCHIVE = ("metadata.csv", "images/metadata.csv")
_LEVELS = tuple(f"diagnosis_{n}" for n in (5, 4, 3, 2, 1))
_OPTIONAL = (
    "image_type",
    "image_manipulation",
    "patient_id",
    "lesion_id",
    "sex",
    "age_approx",
    "anatom_site_general",
    "fitzpatrick_skin_type",
    "diagnosis",
    "benign_malignant",
    *_LEVELS,
)


def _fits_archive(folder: Path, choices: Choices) -> str | None:
    found = (name for name in _TABLES_ARCHIVE if has_column(folder / name, "isic_id"))
    return next((f"found {name} with column isic_id" for name in found), None)


def _read_archive(folder: Path, choices: Choices) -> Download:
    """A download of the archive's command line; which columns there are depends on what was asked for."""
    table = next((p for name in _TABLES_ARCHIVE if (p := folder / name).is_file()), folder / _TABLES_ARCHIVE[0])
    everything = list(rows(require(table), "isic_id", ("attribution", "copyright_license"), _OPTIONAL))
    kept, notes = _of_type(everything, choices, table)
    real = [named for named in kept if named[1]["image_manipulation"].lower() != "synthetic"]
    if synthetic := len(kept) - len(real):
        notes += (f"{synthetic} synthetic images left out: `adopt` takes those, as a set of their own",)
    if torn := sum(_contradicts_itself(row) for _, row, _ in real):
        notes += (f"WARNING: diagnosis_1 contradicts benign_malignant in {torn} rows; diagnosis_1 decides",)
    places = [table.parent, folder, folder / "images"]
    found, extra = find([name for name, _, _ in real], places, table, [name for name, _, _ in everything])
    images = []
    for name, row, where in real:
        code, malignant, word = _diagnosis(row)
        record = new_record(
            name,
            source="archive",
            diagnosis=code,
            malignant=malignant,
            patient_id=known_id(row, "patient_id"),
            lesion_id=known_id(row, "lesion_id"),
            image_manipulation=row["image_manipulation"],
            license=license_name(row["copyright_license"]),
            attribution=row["attribution"],
            sex=known(row, "sex"),
            age_approx=age(row, "age_approx", where),
            anatom_site_general=known(row, "anatom_site_general"),
            skin_tone=_on_scale("Fitzpatrick", row, "fitzpatrick_skin_type"),
            extra={"source_diagnosis": word, "image_type": row["image_type"]},
        )
        images.append(SourceImage(found[name], record))
    return Download(tuple(images), (table,), files_without_row=extra, notes=notes)


def _diagnosis(row: Row) -> tuple[str, int | None, str]:
    """Code, malignancy and the archive's own most exact word.

    The archive knows some 400 diagnoses in up to five levels; the finest that has a code gives it.
    """
    words = [word for level in (*_LEVELS, "diagnosis") if (word := known(row, level))]
    code = next(filter(None, map(code_of, words)), "")
    # diagnosis_1 is Benign, Indeterminate or Malignant; older downloads have benign_malignant instead.
    said = (known(row, "diagnosis_1") or known(row, "benign_malignant")).lower()
    malignant = lesions.MALIGNANCY_CLASSES.index(said) if said in lesions.MALIGNANCY_CLASSES else None
    if not said:
        malignant = lesions.malignancy(code)
    return code, malignant, words[0] if words else ""


def _contradicts_itself(row: Row) -> bool:
    """Whether one column calls the lesion benign and the other one malignant."""
    said = {known(row, column).lower() for column in ("diagnosis_1", "benign_malignant")}
    return said == set(lesions.MALIGNANCY_CLASSES)


def _of_type(named: list[_Named], choices: Choices, table: Path) -> tuple[list[_Named], tuple[str, ...]]:
    """The dermoscopic images, or all by choice, and a note on those left out.

    Raises:
        InputError: none is left.
    """
    if choices.image_types == "all":
        return named, ()
    kept = [item for item in named if item[1]["image_type"] == "dermoscopic"]
    others = Counter(row["image_type"] or "not said" for _, row, _ in named if row["image_type"] != "dermoscopic")
    kinds = ", ".join(f"{kind} {count}" for kind, count in others.most_common())
    if named and not kept:
        raise InputError(f"{table}: no image of image_type dermoscopic ({kinds}). --image_types all takes them all.")
    note = f"{len(named) - len(kept)} images left out that are not dermoscopic ({kinds}); --image_types all takes them"
    return kept, (note,) if others else ()


def _on_scale(scale: str, row: Row, column: str) -> str:
    """A skin tone with its scale, as the scales of the archive and of MILK10k run in opposite directions."""
    value = known(row, column)
    return f"{scale} {value}" if value else ""


# ------------------------------------------------------------------------------------------------ MILK10k

_TRUTH, _METADATA = "MILK10k_Training_GroundTruth.csv", "MILK10k_Training_Metadata.csv"
_INPUT = "MILK10k_Training_Input"
_ABOUT = ("attribution", "copyright_license", "image_manipulation", "age_approx", "sex", "skin_tone_class", "site")
_CLASSES: dict[str, tuple[str, int | None]] = {
    **{code: (code, lesions.malignancy(code)) for code in ("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC")},
    "SCCKA": ("SCC", 1),  # squamous cell carcinoma or keratoacanthoma
    "BEN_OTH": ("", 0),
    "INF": ("", 0),  # inflammatory and infectious
    "MAL_OTH": ("", 1),
}


def _read_milk10k(folder: Path, choices: Choices) -> Download:
    """Pairs of a dermoscopic and a clinical photograph of each lesion; the diagnosis is the lesion's."""
    truth, table = require(folder / _TRUTH), require(folder / _METADATA)
    code_of_lesion: dict[str, str] = {}
    for row, where in cells(truth, ("lesion_id", *_CLASSES)):
        code_of_lesion[row["lesion_id"]] = one_of(row, tuple(_CLASSES), where)
    everything = list(rows(table, "isic_id", ("lesion_id", "image_type"), _ABOUT))
    kept, notes = _of_type(everything, choices, table)
    places = [place for base in (folder / _INPUT, folder / _INPUT / _INPUT, folder) for place in subfolders(base)]
    found, extra = find([name for name, _, _ in kept], places, table, [name for name, _, _ in everything])
    images = []
    for name, row, where in kept:
        if row["lesion_id"] not in code_of_lesion:
            raise InputError(f"{where}: lesion_id {row['lesion_id']!r} has no row in {truth}. Download both again.")
        word = code_of_lesion[row["lesion_id"]]
        code, malignant = _CLASSES[word]
        record = new_record(
            name,
            source="milk10k",
            diagnosis=code,
            malignant=malignant,
            lesion_id=row["lesion_id"],
            image_manipulation=row["image_manipulation"],
            license=license_name(row["copyright_license"]) or "CC-BY-NC-4.0",
            attribution=row["attribution"] or "MILK10k, International Skin Imaging Collaboration",
            sex=known(row, "sex"),
            age_approx=age(row, "age_approx", where),
            anatom_site_general=known(row, "site"),
            skin_tone=_on_scale("MILK10k", row, "skin_tone_class"),
            extra={"source_diagnosis": word, "image_type": row["image_type"]},
        )
        images.append(SourceImage(found[name], record))
    return Download(tuple(images), (truth, table), files_without_row=extra, notes=notes)


ARCHIVE = Layout("archive", _TABLES_ARCHIVE, _read_archive, _fits_archive)
MILK10K = Layout("milk10k", (_TRUTH, _METADATA), _read_milk10k)
