"""What the tests of readers share."""

import csv
import shutil

from dermsynth.data.prepare.layouts.recognise import read_download

COLUMNS_2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read(folder, *arguments):
    """The records of a download by id, and the download."""
    _, _, download = read_download(folder, *arguments)
    return {image.record.image_id: image.record for image in download.images}, download


def cells(table, column):
    """One column of a CSV."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        return [row[column] for row in csv.DictReader(file)]


def lay_out(folder, table, column, *places):
    """A download of which only an official table is real: it, and an empty image for each of its rows.

    Returns:
        The names of the images.
    """
    shutil.copy(table, folder)
    names = cells(table, column)
    for number, name in enumerate(names):
        touch(folder / places[number % len(places)] / f"{name}.jpg")
    return names


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
