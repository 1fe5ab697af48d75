"""How a layout is found, and what a download that has none is answered with; for broken ones, see tests/bad_input."""

from typing import get_args

import pytest

from dermsynth.data.prepare.layouts.recognise import LAYOUTS, LayoutName, read_download
from dermsynth.data.prepare.layouts.tables import cells
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import COLUMNS_2020, rewrite


def test_every_layout_can_be_named():
    assert get_args(LayoutName) == ("auto", *LAYOUTS)


def test_unknown_layout_lists_what_was_looked_for(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="no known layout") as error:
        read_download(tmp_path)
    for layout in LAYOUTS.values():
        assert all(sign in str(error.value) for sign in layout.signs)
    assert len(str(error.value).splitlines()) == 3


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


def test_missing_images_are_counted_and_the_first_named(isic2020):
    for number in (1, 3):
        (isic2020 / "train" / f"ISIC_000000{number}.jpg").unlink()
    with pytest.raises(InputError, match=r"2 of 4 images .* missing: ISIC_0000001, ISIC_0000003"):
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
