"""How a layout is found, and what bad input of any layout is answered with."""

from typing import get_args

import pytest

from dermsynth.data.layouts.recognise import LAYOUTS, LayoutName, read_download
from dermsynth.data.layouts.tables import cells
from dermsynth.errors import InputError
from tests.data.layouts.helpers import COLUMNS_2020, read, rewrite, touch, write


def test_every_layout_can_be_named():
    assert get_args(LayoutName) == ("auto", *LAYOUTS)


@pytest.mark.parametrize("place", ["train/ISIC_0000001.jpg", "train.csv", "train", "deep/er"])
def test_a_link_out_of_the_folder_is_refused_before_anything_is_read(isic2020, tmp_path, place):
    outside = tmp_path / "outside"
    path = isic2020 / place
    if path.exists():
        path.rename(outside)
    else:
        write(outside, "secret")
        path.parent.mkdir()
    path.symlink_to(outside)
    with pytest.raises(InputError, match=rf"{place}: a symbolic link that leaves .*isic2020") as error:
        read(isic2020)
    assert "outside" not in str(error.value)


def test_links_inside_the_folder_and_a_link_to_it_are_fine(isic2020, tmp_path):
    (isic2020 / "train").rename(isic2020 / "photographs")
    (isic2020 / "train").symlink_to("photographs")
    (tmp_path / "link").symlink_to(isic2020)
    assert len(read(tmp_path / "link")[0]) == 4


def test_a_link_to_nowhere_is_refused_like_a_link_out(isic2020, tmp_path):
    (isic2020 / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="a symbolic link that leaves"):
        read(isic2020)


def test_unknown_layout_lists_what_was_looked_for(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="no known layout") as error:
        read_download(tmp_path)
    for layout in LAYOUTS.values():
        assert all(sign in str(error.value) for sign in layout.signs)


def test_two_layouts_in_one_folder_ask_for_a_choice(isic2017):
    (isic2017 / "train.csv").write_text(COLUMNS_2020)
    with pytest.raises(InputError, match=r"isic2017 .*isic2020 .*--layout"):
        read_download(isic2017)
    assert read_download(isic2017, "isic2017")[1] == "named by --layout"


def test_a_layout_named_wrongly_says_what_it_misses(isic2017):
    with pytest.raises(InputError, match=r"train\.csv: no such file"):
        read_download(isic2017, "isic2020")


def test_missing_empty_and_file(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_download(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the folder is empty"):
        read_download(tmp_path / "empty")
    (tmp_path / "archive.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack it"):
        read_download(tmp_path / "archive.zip")


def test_a_table_without_rows(isic2020):
    (isic2020 / "train.csv").write_text(COLUMNS_2020 + "\n")
    with pytest.raises(InputError, match="no rows"):
        read_download(isic2020)


@pytest.mark.parametrize("column", ["image_name", "patient_id", "target"])
def test_a_missing_column_is_named(isic2020, column):
    rewrite(isic2020 / "train.csv", f"{column}", "other")
    with pytest.raises(InputError, match=rf"train\.csv: column {column} is missing; found .*other"):
        read_download(isic2020)


def test_missing_images_are_counted_and_the_first_named(isic2020):
    for number in (1, 3):
        (isic2020 / "train" / f"ISIC_000000{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 4 images .* missing: ISIC_0000001, ISIC_0000003"):
        read_download(isic2020)


def test_a_repeated_id_is_an_error(isic2020):
    rewrite(isic2020 / "train.csv", "ISIC_0000002", "ISIC_0000001")
    with pytest.raises(InputError, match=r"line 3: image_name 'ISIC_0000001' occurs twice"):
        read_download(isic2020)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "train/ISIC_0000001", "..", "", "a b", "a\\b"])
def test_a_name_with_path_parts_is_an_error(isic2020, name):
    rewrite(isic2020 / "train.csv", "ISIC_0000002", name)
    with pytest.raises(InputError, match=r"line 3: image_name .*expected an image name"):
        read_download(isic2020)


def test_two_files_of_one_image_are_an_error(isic2020):
    touch(isic2020 / "train" / "ISIC_0000001.png")
    with pytest.raises(InputError, match=r"ISIC_0000001\.png: ISIC_0000001\.jpg lies beside it"):
        read_download(isic2020)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",nevus,", ",wart,", "line 3: diagnosis 'wart'"),
        (",45.0,", ",old,", "line 2: age_approx 'old'"),
        ("malignant,1", "malignant,2", "line 4: target '2'; expected 0 or 1"),
        (",nevus,benign,0", ",nevus", "line 3: 8 cells expected"),
        (",nevus,benign,0", ",nevus,benign,0,0", "line 3: 8 cells expected"),
    ],
)
def test_a_bad_cell_is_named_by_line(isic2020, old, new, message):
    rewrite(isic2020 / "train.csv", old, new)
    with pytest.raises(InputError, match=message):
        read_download(isic2020)


def test_no_message_holds_a_patient_id(isic2020):
    rewrite(isic2020 / "train.csv", "nevus,benign,0", "nevus")
    with pytest.raises(InputError) as error:
        read_download(isic2020)
    assert "IP_" not in str(error.value)


def test_a_table_that_the_disk_does_not_give(tmp_path):
    for table, why in ((tmp_path, "Is a directory"), (tmp_path / "no.csv", "No such file or directory")):
        with pytest.raises(InputError) as error:
            list(cells(table, ["image_name"]))
        assert str(error.value) == f"{table}: cannot be read ({why})."


def test_a_table_that_is_not_text(isic2020):
    (isic2020 / "train.csv").write_bytes(b"image_name,patient_id,target\n\xff\xfe\n")
    with pytest.raises(InputError, match="not a CSV in UTF-8"):
        read_download(isic2020)
