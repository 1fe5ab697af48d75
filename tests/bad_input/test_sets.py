"""Image sets that somebody changed: their tables, links and images."""

import csv

import pytest

from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from tests.bad_input.helpers import PNG, png
from tests.builders import CLASSES, make_set
from tests.rights import without_rights

FIRST = "images/r_NV_000.png"
FILE_NAMES = ["../outside/secret.png", "/etc/passwd", "images/../../outside/secret.png", "..", "a\\b.png"]
FILE_NAMES += ["C:\\secret.png", "\\\\server\\share.png", "images/../images/r_NV_000.png", "images/\0.png"]
ENCODED = {
    "latin-1": lambda text: text.replace("nobody", "Jürgen").encode("latin-1"),
    "utf-16": lambda text: text.encode("utf-16"),
    "binary": lambda text: PNG,
    "empty": lambda text: b"",
    "header-only": lambda text: text.splitlines()[0].encode() + b"\n",
    "endless-cell": lambda text: text.replace("nobody", "x" * 200_000).encode(),
}
CELLS = {
    **{f"file_name-{name}": ("file_name", name, "leaves the set's folder|no file name") for name in FILE_NAMES},
    "split": ("split", "training", "split 'training'"),
    "origin": ("origin", "fake", "origin 'fake'"),
    "diagnosis": ("diagnosis", "WART", "diagnosis 'WART'"),
    "malignant": ("malignant", "2", "malignant '2'"),
    "malignant-word": ("malignant", "yes", "malignant 'yes'"),
    "width": ("width", "wide", "must be numbers"),
    "width-zero": ("width", "0", "at least 1 pixel"),
    "height-negative": ("height", "-4", "at least 1 pixel"),
    "height-fraction": ("height", "1.5", "must be numbers"),
    "age": ("age_approx", "old", "must be numbers"),
    "id-twice": ("image_id", "r_NV_001", "occurs twice"),
    "file-twice": ("file_name", "images/r_NV_001.png", "occurs twice"),
    "group-in-two-splits": ("group", "g_r_NV_007", "different splits"),
}


def rewritten(root, change):
    with (root / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.mark.parametrize("what", ["images/r_NV_001.png", "images", "metadata.csv", "dataset.json"])
def test_a_link_out_of_a_set_is_not_followed(tmp_path, outside, what):
    root = make_set(tmp_path / "set")
    path = root / what
    path.rename(tmp_path / "away")
    path.symlink_to(outside if what == "images" else outside / "secret.png")
    with pytest.raises(InputError, match=f"{path.name}: a symbolic link that leaves"):
        manifest.read(root)


@pytest.mark.parametrize("name", CELLS)
def test_a_bad_cell_of_a_set_is_an_error_that_names_it(tmp_path, name):
    column, value, message = CELLS[name]
    root = rewritten(make_set(tmp_path / "set"), lambda rows: rows[0].update({column: value}))
    with pytest.raises(InputError, match=message) as error:
        manifest.read(root)
    assert "metadata.csv" in str(error.value)


@pytest.mark.parametrize("column", manifest.REQUIRED)
def test_a_column_that_is_missing_or_blank_is_named(tmp_path, column):
    root = rewritten(make_set(tmp_path / "set"), lambda rows: rows[3].update({column: ""}))
    with pytest.raises(InputError, match=f"line 5: {column} is blank"):
        manifest.read(root)
    rewritten(root, lambda rows: [row.pop(column) for row in rows])
    with pytest.raises(InputError, match=f"column {column} is missing"):
        manifest.read(root)


@pytest.mark.parametrize("name", ENCODED)
def test_a_table_of_a_set_that_is_no_table_is_an_error(tmp_path, name):
    root = make_set(tmp_path / "set")
    path = root / "metadata.csv"
    path.write_bytes(ENCODED[name](path.read_text()))
    with pytest.raises(InputError, match=r"metadata\.csv: (not a CSV|column|no rows)"):
        manifest.read(root)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", PNG])
def test_a_broken_account_of_a_set_is_an_error(tmp_path, content):
    root = make_set(tmp_path / "set")
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        manifest.read(root)


@pytest.mark.parametrize("what", ["", "images", "metadata.csv", "dataset.json"])
def test_what_cannot_be_read_of_a_set_is_named(tmp_path, what):
    root = make_set(tmp_path / "set")
    with without_rights(root / what), pytest.raises(InputError) as error:
        manifest.read(root)
    assert str(error.value) == f"{root / what}: cannot be read (Permission denied)."


def test_a_folder_in_the_place_of_a_table_is_named(tmp_path):
    root = make_set(tmp_path / "set")
    (root / "dataset.json").unlink()
    (root / "dataset.json").mkdir()
    with pytest.raises(InputError, match=r"dataset\.json: not a file"):
        manifest.read(root)
    (root / "metadata.csv").unlink()
    (root / "metadata.csv").mkdir()
    with pytest.raises(InputError, match=r"no metadata\.csv in it"):
        manifest.read(root)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    root = make_set(tmp_path / "set")
    before = manifest.read(root).records
    path = root / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert manifest.read(root).records == before


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("content", [None, b"", b"text", PNG[:-6], PNG[:40], png(60000, 60000)[:-1]])
def test_a_broken_image_of_a_set_is_named_when_it_is_loaded(tmp_path, content, cached):
    root = make_set(tmp_path / "set")
    path = root / FIRST
    path.unlink() if content is None else path.write_bytes(content)
    cache = tmp_path / "cache" if cached else None
    data = ClassificationData(real=root, classes=CLASSES, size=16, batch_size=4, pixel_cache=cache)
    data.setup("fit")
    with pytest.raises(InputError, match=r"r_NV_000\.png: (cannot be read|not a JPEG|truncated)"):
        list(data.train_dataloader())
    assert not cached or {path.suffix for path in cache.iterdir()} == {".lock"}
