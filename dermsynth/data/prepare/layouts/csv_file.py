"""Any CSV whose columns the user names."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dermsynth.data.prepare.layouts.download import Choices, Columns, Download, Layout, SourceImage, new_record
from dermsynth.data.prepare.layouts.files import every_image, image_ids, passed_over, refuse_missing
from dermsynth.data.prepare.layouts.labels import Label, label_of, refuse_unknown
from dermsynth.data.prepare.layouts.tables import (
    Row,
    age,
    cells,
    has_column,
    in_utf8,
    known,
    known_id,
    license_name,
    split_of,
)
from dermsynth.data.sets.images import SUFFIXES
from dermsynth.data.sets.manifest import Record
from dermsynth.data.sets.name_lists import some
from dermsynth.errors import InputError

_TABLES = (".csv", ".tsv", ".tab")
_MALIGNANT = {"0": 0, "0.0": 0, "benign": 0, "false": 0, "1": 1, "1.0": 1, "malignant": 1, "true": 1}


def _table(folder: Path, columns: Columns) -> Path | None:
    """The CSV of that name, or the only one that has the image column."""
    there = sorted(path for path in folder.iterdir() if path.suffix.lower() in _TABLES and path.is_file())
    if columns.table:
        there = [path for path in there if path.name == columns.table]
    candidates, there = there, [path for path in there if has_column(path, columns.image)]
    if not there and (strange := [path for path in candidates if not in_utf8(path)]):
        raise InputError(f"{strange[0]}: not UTF-8, so its columns cannot be read. Save it as UTF-8.")
    if len(there) > 1:
        names = ", ".join(path.name for path in there)
        raise InputError(f"{folder}: several tables have a column {columns.image}: {names}. Choose by --columns.table.")
    return there[0] if there else None


def _fits(folder: Path, choices: Choices) -> str | None:
    table = _table(folder, choices.columns) if choices.columns.image else None
    return f"found {table.name} with column {choices.columns.image}" if table else None


def _read(folder: Path, choices: Choices) -> Download:
    """The images that the table names, wherever in the folder they lie."""
    columns = choices.columns
    if not columns.image or not (columns.label or columns.malignant):
        raise InputError(f"{folder}: name the columns of its CSV: --columns.image, and --columns.label or .malignant.")
    table = _table(folder, columns)
    if table is None:
        which = f"no {columns.table}" if columns.table else "no CSV"
        raise InputError(f"{folder}: {which} with a column {columns.image} in it. See --columns.table.")
    named = {name: column for name, column in vars(columns).items() if name != "table"}
    table_rows = [
        ({name: row.get(column, "") for name, column in named.items()}, where)
        for row, where in cells(table, tuple(dict.fromkeys(filter(None, named.values()))))
    ]
    labels = {word: label_of(word, choices.labels) for word in {row["label"] for row, _ in table_rows}}
    refuse_unknown(Counter(row["label"] for row, _ in table_rows if labels[row["label"]] is None), str(table))
    there = every_image(folder)
    paths = _find(table_rows, there, folder, table)
    images = [
        SourceImage(folder / path, _record(image_id, row, labels[row["label"]] or Label(), where, folder))
        for image_id, path, (row, where) in zip(image_ids(paths), paths, table_rows, strict=True)
    ]
    if columns.split and not {"train", "test"} <= (parts := {image.record.split for image in images} - {"unused"}):
        raise InputError(
            f"--columns.split {columns.split}: {table} has the parts {', '.join(sorted(parts)) or 'none'}; expected "
            "train and test, and val or none. Leave it out to have the patients split again."
        )
    others = passed_over(folder, but=_TABLES, deep=True)
    notes = (f"files passed over ({others}); only {', '.join(SUFFIXES)} are read",) if others else ()
    return Download(tuple(images), (table,), files_without_row=len(there) - len(images), notes=notes)


def _find(
    table_rows: Sequence[tuple[Row, str]], there: Sequence[PurePosixPath], folder: Path, table: Path
) -> list[PurePosixPath]:
    """The file of each row, by its path in the folder or by its name alone, with or without suffix."""
    called: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    for path in there:
        for name in {str(path), str(path.with_suffix("")), path.name, path.stem}:
            called[name].append(path)
    taken: dict[PurePosixPath, str] = {}
    for row, where in table_rows:
        wanted = PurePosixPath(row["image"])
        if not wanted.name or wanted.is_absolute() or ".." in wanted.parts or "\\" in row["image"]:
            raise InputError(f"{where}: image {row['image']!r}; expected a name, or a path inside the folder, with /.")
        found = [wanted] if wanted in called[str(wanted)] else called[str(wanted)]
        if len(found) > 1:
            raise InputError(f"{where}: image {row['image']!r} may be {some(map(str, found))}. Give its path.")
        if found and found[0] in taken:
            raise InputError(f"{where}: image {row['image']!r} occurs twice. Keep one row per image.")
        taken[found[0] if found else wanted] = where
    refuse_missing(list(map(str, taken)), set(map(str, there)), f"{folder} for {', '.join(SUFFIXES)}", table)
    return list(taken)


def _record(image_id: str, row: Row, label: Label, where: str, folder: Path) -> Record:
    malignant, split = known(row, "malignant").lower(), row["split"]
    if malignant and malignant not in _MALIGNANT:
        raise InputError(f"{where}: malignant {malignant!r}; expected 0 or 1, benign or malignant, or a blank.")
    if split and not split_of(split):
        raise InputError(f"{where}: split {split!r}; expected train, val or test, or a blank.")
    return new_record(
        image_id,
        split=split_of(split) or "unused",
        source=folder.resolve().name,
        diagnosis=label.diagnosis,
        malignant=_MALIGNANT.get(malignant, label.malignant),
        patient_id=known_id(row, "patient"),
        lesion_id=known_id(row, "lesion"),
        license=license_name(row["license"]),
        attribution=row["attribution"],
        sex=known(row, "sex"),
        age_approx=age(row, "age", where),
        anatom_site_general=known(row, "site"),
        skin_tone=known(row, "skin_tone"),
        extra={"source_diagnosis": row["label"]},
    )


CSV = Layout("csv", ("any CSV whose columns are named, as --columns.image FILE --columns.label DX",), _read, _fits)
