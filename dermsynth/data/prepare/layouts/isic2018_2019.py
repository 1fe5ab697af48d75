"""HAM10000, and the challenges of 2018 and 2019 that were made of it: one column a class, lesions in another table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dermsynth import lesions
from dermsynth.data.prepare.layouts.download import Choices, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import find, list_images, refuse_missing
from dermsynth.data.prepare.layouts.tables import Row, age, known, known_id, one_of, require, rows
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError

_LESIONS = "without it photographs of one lesion would come to lie in several splits"
_HAM10000 = "Tschandl et al. 2018, HAM10000, doi:10.7910/DVN/DBW86T"


@dataclass(frozen=True)
class _Challenge:
    """What differs between the two years.

    Args:
        source: name of the layout.
        prefix: of every file.
        attribution: whom to credit.
        classes: columns of the ground truth -> code, blank for unknown.
        parts: split -> the part's name in file names.
        people: end of the name of the table with lesions and people.
    """

    source: str
    prefix: str
    attribution: str
    classes: dict[str, str]
    parts: dict[str, str]
    people: str

    def table(self, folder: Path, part: str, end: str) -> Path:
        """A CSV beside the images, or in a folder of its own name, as its archive unpacks."""
        name = f"{self.prefix}_{part}_{end}"
        inner = folder / f"{self.prefix}_{part}_GroundTruth" / f"{name}.csv"
        return inner if inner.is_file() else folder / f"{name}.csv"

    def signs(self, parts: Sequence[str]) -> tuple[str, ...]:
        """Names of the ground truths of these parts."""
        names = [f"{self.prefix}_{part}_GroundTruth" for part in parts]
        return tuple(sign for name in names for sign in (f"{name}.csv", f"{name}/{name}.csv"))

    def read(self, folder: Path, choices: Choices) -> Download:
        """Each part that is there; the lesions of the training part are not optional."""
        images: list[SourceImage] = []
        tables: list[Path] = []
        notes: list[str] = []
        without_row = 0
        for split, part in self.parts.items():
            truth = self.table(folder, part, "GroundTruth")
            data = folder / f"{self.prefix}_{part}_Input"
            places = [data, data / data.name]
            if not truth.is_file() and not (data.is_dir() and split == "train"):
                # A part that was not downloaded, or whose labels were not.
                if unlabelled := len(list_images(*places)):
                    notes.append(f"{unlabelled} images of {data.name} left out, as {truth.name} is not there")
                continue
            people = self.table(folder, part, self.people)
            tables.append(require(truth))
            table = list(rows(truth, "image", tuple(self.classes)))
            names = [name for name, _, _ in table]
            if split == "train":
                require(people, _LESIONS)
            about = _people(people, ("lesion_id",) if split == "train" else ())
            if people.is_file():
                refuse_missing(names, about, str(people), truth)
                tables.append(people)
            found, extra = find(names, places, truth)
            without_row += extra
            for name, row, where in table:
                code = self.classes[one_of(row, tuple(self.classes), where)]
                person, place = about.get(name, (dict.fromkeys(_PEOPLE, ""), ""))
                # 2019 adds this to the names of images that it shrank; other sets have them without.
                image_id = name.removesuffix("_downsampled")
                record = _record(image_id, code, person, place, source=self.source, attribution=self.attribution)
                images.append(SourceImage(found[name], replace(record, split=split)))
        if not tables:
            require(self.table(folder, "Training", "GroundTruth"))
        return Download(tuple(images), tuple(tables), files_without_row=without_row, notes=tuple(notes))


_PEOPLE = ("lesion_id", "age_approx", "sex", "anatom_site_general")


def _people(table: Path, needed: Sequence[str]) -> dict[str, tuple[Row, str]]:
    optional = [column for column in _PEOPLE if column not in needed]
    there = rows(table, "image", needed, optional) if table.is_file() else ()
    return {name: (row, where) for name, row, where in there}


def _record(
    image_id: str,
    code: str,
    person: Row,
    where: str,
    years: str = "age_approx",
    site: str = "anatom_site_general",
    **credit: str,
) -> Record:
    """One image and its lesion, which HAM10000 tells in columns of other names."""
    return new_record(
        image_id,
        diagnosis=code,
        malignant=lesions.malignancy(code),
        lesion_id=known_id(person, "lesion_id"),
        age_approx=age(person, years, where),
        sex=known(person, "sex"),
        anatom_site_general=known(person, site),
        license="CC-BY-NC-4.0",
        **credit,
    )


_2018 = _Challenge(
    source="isic2018",
    prefix="ISIC2018_Task3",
    attribution=f"ISIC 2018 challenge, International Skin Imaging Collaboration, arXiv:1902.03368; {_HAM10000}",
    classes={code: code for code in ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")},
    parts={"train": "Training", "val": "Validation", "test": "Test"},
    people="LesionGroupings",
)
_2019 = _Challenge(
    source="isic2019",
    prefix="ISIC_2019",
    attribution="ISIC 2019 challenge, International Skin Imaging Collaboration; BCN_20000, arXiv:1908.02288; "
    f"{_HAM10000}; MSK, arXiv:1710.05006",
    classes={**{code: code for code in ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")}, "UNK": ""},
    parts={"train": "Training", "test": "Test"},
    people="Metadata",
)

# Kaggle's name, and Dataverse's two.
_TABLES_HAM10000 = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_FOLDERS_HAM10000 = ("HAM10000_images_part_1", "HAM10000_images_part_2", "HAM10000_images", "images")
_CODES_HAM10000 = {code.lower(): code for code in _2018.classes}


def _read_ham10000(folder: Path, choices: Choices) -> Download:
    """HAM10000 under its Dataverse or its Kaggle names; 7,470 lesions, a quarter of them photographed several times."""
    table = next((p for name in _TABLES_HAM10000 if (p := folder / name).is_file()), folder / _TABLES_HAM10000[0])
    needed = ("lesion_id", "dx", "age", "sex", "localization")
    found_rows = list(rows(require(table), "image_id", needed))
    places = [*(folder / name for name in _FOLDERS_HAM10000), folder]
    found, extra = find([name for name, _, _ in found_rows], places, table)
    images = []
    for name, row, where in found_rows:
        if row["dx"] not in _CODES_HAM10000:
            raise InputError(f"{where}: dx {row['dx']!r}; expected one of {', '.join(_CODES_HAM10000)}.")
        credit = {"source": "ham10000", "attribution": _HAM10000}
        record = _record(name, _CODES_HAM10000[row["dx"]], row, where, "age", "localization", **credit)
        images.append(SourceImage(found[name], record))
    return Download(tuple(images), (table,), files_without_row=extra)


ISIC2018 = Layout("isic2018", _2018.signs(["Training", "Validation"]), _2018.read)
ISIC2019 = Layout("isic2019", _2019.signs(["Training", "Test"]), _2019.read)
HAM10000 = Layout("ham10000", _TABLES_HAM10000, _read_ham10000)
