"""Rows of a CSV, and what their cells mean; every error names the line."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from dermsynth.data.sets.manifest import OLDEST
from dermsynth.errors import InputError
from dermsynth.files import reading

Row = dict[str, str]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
#: How tables and people say that nothing is known, in lower case.
UNKNOWN = (
    *("", "unknown", "unk", "na", "nan", "none", "n/a", "#n/a", "n.a.", "n.d.", "n/d"),
    *("not available", "not known", "undefined"),
)
# No id either, whatever one counts from; 0 may be the first patient's.
_NO_ID = (*UNKNOWN, "-1", "-1.0", "?", "-", "null", "<na>", "missing", "unknown patient", "unknown lesion")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLITS |= {"test": "test", "testing": "test"}
_LICENSES = {"CC-0": "CC0-1.0", "CC-BY": "CC-BY-4.0", "CC-BY-NC": "CC-BY-NC-4.0"}


def require(table: Path, why: str = "this layout needs it") -> Path:
    """The table, if it is there.

    Raises:
        InputError: it is not.
    """
    if not table.is_file():
        raise InputError(f"{table}: no such file, and {why}. Download it beside the images.")
    return table


def cells(
    table: Path, needed: Sequence[str], optional: Sequence[str] = (), header: Sequence[str] | None = None
) -> Iterator[tuple[Row, str]]:
    """The rows of a CSV with the columns that are asked for, and no others, whatever else the table tells.

    Args:
        table: in UTF-8, with or without byte-order mark.
        needed: columns that must be there.
        optional: columns that may be missing; their cells are then blank.
        header: names of the columns of a table that does not name them.

    Yields:
        The cells without surrounding blanks, and where the row stands, for messages.

    Raises:
        InputError: a column is missing, a row is longer or shorter than the header, or this is no CSV that can be read.
    """
    try:
        with reading(table), table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, header, delimiter="," if header else _delimiter(file))
            columns = list(reader.fieldnames or [])
            missing = [name for name in needed if name not in columns]
            if missing:
                raise InputError(
                    f"{table}: column {', '.join(missing)} is missing; found {', '.join(columns) or 'none'}. "
                    "Download the table again, or choose another --layout."
                )
            wanted = [name for name in (*needed, *optional) if name in columns]
            if twice := [name for name in wanted if columns.count(name) > 1]:
                raise InputError(f"{table}: column {', '.join(twice)} occurs twice. Keep the one that is meant.")
            blank = {name: "" for name in optional if name not in columns}
            for row in reader:
                where = f"{table}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: {len(columns)} cells expected as in the header. Correct the row.")
                yield {name: row[name].strip() for name in wanted} | blank, where
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error}). Save it as UTF-8, or download it again.") from error


def _delimiter(file: TextIO) -> str:
    """What stands between the cells: a comma, or the tab or semicolon of Dataverse and of spreadsheets."""
    header = file.readline()
    file.seek(0)
    return max(",;\t", key=header.count)


def rows(
    table: Path,
    key: str,
    needed: Sequence[str] = (),
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
) -> Iterator[tuple[str, Row, str]]:
    """The same for a table with one row per image: the name in column `key`, the row, where it stands.

    Raises:
        InputError: also for a name with path parts or blanks, or one that occurs twice.
    """
    seen: set[str] = set()
    for row, where in cells(table, (key, *needed), optional, header):
        name = row[key]
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{where}: {key} {name!r}; expected an image name without folder or blanks, as ISIC_0000000."
            )
        if name in seen:
            raise InputError(f"{where}: {key} {name!r} occurs twice. Keep one row per image.")
        seen.add(name)
        yield name, row, where


def has_column(table: Path, column: str) -> bool:
    """Whether a file is there and is a CSV with this column.

    Raises:
        InputError: it is there and cannot be read.
    """
    if not table.is_file():
        return False
    try:
        with reading(table), table.open(newline="", encoding="utf-8-sig") as file:
            return column in next(csv.reader(file, delimiter=_delimiter(file)), [])
    except (UnicodeDecodeError, csv.Error):
        return False


def in_utf8(table: Path) -> bool:
    """Whether a file is text in UTF-8."""
    try:
        with reading(table):
            table.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True


def known(row: Row, column: str) -> str:
    """The cell, or blank where it says that nothing is known."""
    return "" if row[column].lower() in UNKNOWN else row[column]


def known_id(row: Row, column: str) -> str:
    """The id of a patient or lesion, or blank where the cell says that it has none."""
    return "" if row[column].lower() in _NO_ID else row[column]


def flag(row: Row, column: str, where: str) -> int:
    """A cell that holds 0 or 1."""
    if row[column] not in ("0", "1", "0.0", "1.0"):
        raise InputError(f"{where}: {column} {row[column]!r}; expected 0 or 1.")
    return int(row[column][0])


def one_of(row: Row, columns: Sequence[str], where: str) -> str:
    """The one column of several that holds 1; the others hold 0."""
    chosen = [column for column in columns if flag(row, column, where)]
    if len(chosen) != 1:
        found = " and ".join(chosen) or "none"
        raise InputError(f"{where}: 1 in {found} of {', '.join(columns)}; expected it in one of them.")
    return chosen[0]


def age(row: Row, column: str, where: str) -> float | None:
    """A cell that holds years, or nothing."""
    value = known(row, column)
    try:
        years = float(value) if value else None
    except ValueError as error:
        raise InputError(f"{where}: {column} {value!r}; expected a number of years or a blank.") from error
    if years is not None and not 0 <= years <= OLDEST:
        raise InputError(f"{where}: {column} {value!r}; expected 0 to {OLDEST} years, or a blank.")
    return years


def license_name(word: str) -> str:
    """The archive's word for a licence, such as CC-BY-NC, as SPDX spells it; other words stay."""
    return _LICENSES.get(word.upper(), word)


def split_of(word: str) -> str:
    """Train, val or test, however it is spelt; blank for any other word."""
    return _SPLITS.get(word.lower(), "")
