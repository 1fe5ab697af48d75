"""Readers of ISIC downloads, on drawn files under the official names, and on the real ones where they are."""

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dermsynth.data.isic import LAYOUTS, _second_of_pairs, read_download
from dermsynth.errors import InputError

COLUMNS_2020 = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)).save(path)


@pytest.fixture
def isic2017(tmp_path):
    """Two images a part: a melanoma and a keratosis in training, a nevus and a melanoma elsewhere."""
    folder = tmp_path / "isic2017"
    flags = {
        "Training": ("1.0,0.0", "0.0,1.0"),
        "Validation": ("0.0,0.0", "1.0,0.0"),
        "Test_v2": ("0,0", "1,0"),
    }
    for number, (part, rows) in enumerate(flags.items()):
        names = [f"ISIC_000000{2 * number + i}" for i in range(2)]
        data = folder / f"ISIC-2017_{part}_Data"
        for name in names:
            draw(data / f"{name}.jpg")
            draw(data / f"{name}_superpixels.png")
        truth = "".join(f"{name},{row}\r\n" for name, row in zip(names, rows, strict=True))
        table = folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv"
        table.write_text("image_id,melanoma,seborrheic_keratosis\r\n" + truth)
        people = f"{names[0]},55,female\n{names[1]},unknown,unknown\n"
        (data / f"{data.name}_metadata.csv").write_text("image_id,age_approximate,sex\n" + people)
    return folder


@pytest.fixture
def isic2020(tmp_path):
    folder = tmp_path / "isic2020"
    rows = [
        "ISIC_0000001,IP_1,female,45.0,torso,unknown,benign,0",
        "ISIC_0000002,IP_1,,,,nevus,benign,0",
        "ISIC_0000003,IP_2,male,50,head/neck,melanoma,malignant,1",
        "ISIC_0000004,IP_2,male,50,head/neck,lentigo NOS,benign,0",
    ]
    for row in rows:
        draw(folder / "train" / f"{row[:12]}.jpg")
    (folder / "train.csv").write_text("\n".join([COLUMNS_2020, *rows]) + "\n")
    return folder


def by_id(download):
    return {image.record.image_id: image.record for image in download.images}


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestIsic2017:
    def test_records(self, isic2017):
        layout, why, download = read_download(isic2017)
        assert (layout.name, why) == ("isic2017", "found ISIC-2017_Training_Part3_GroundTruth.csv")
        assert download.official_split
        assert len(download.tables) == 6
        records = by_id(download)
        assert [r.diagnosis for r in records.values()] == ["MEL", "SK", "NV", "MEL", "NV", "MEL"]
        assert [r.malignant for r in records.values()] == [1, 0, 0, 1, 0, 1]
        assert [r.split for r in records.values()] == ["train", "train", "val", "val", "test", "test"]
        first, second = records["ISIC_0000000"], records["ISIC_0000001"]
        assert (first.age_approx, first.sex) == (55.0, "female")
        assert (second.age_approx, second.sex) == (None, "")
        assert (first.license, first.source, first.origin) == ("CC0-1.0", "isic2017", "real")
        assert "2017" in first.attribution

    def test_superpixels_are_not_images(self, isic2017):
        _, _, download = read_download(isic2017)
        assert all(image.path.suffix == ".jpg" for image in download.images)
        assert download.files_without_row == 0

    def test_metadata_may_be_missing(self, isic2017):
        (isic2017 / "ISIC-2017_Test_v2_Data" / "ISIC-2017_Test_v2_Data_metadata.csv").unlink()
        assert by_id(read_download(isic2017)[2])["ISIC_0000004"].sex == ""

    def test_one_part_alone_has_no_official_split(self, isic2017):
        shutil.rmtree(isic2017 / "ISIC-2017_Test_v2_Data")
        (isic2017 / "ISIC-2017_Test_v2_Part3_GroundTruth.csv").unlink()
        _, _, download = read_download(isic2017)
        assert not download.official_split
        assert len(download.images) == 4

    def test_images_without_their_table_are_an_error(self, isic2017):
        (isic2017 / "ISIC-2017_Validation_Part3_GroundTruth.csv").unlink()
        with pytest.raises(InputError, match=r"Validation_Part3_GroundTruth\.csv: no such file"):
            read_download(isic2017)

    def test_two_diagnoses_of_one_image_are_an_error(self, isic2017):
        rewrite(isic2017 / "ISIC-2017_Training_Part3_GroundTruth.csv", "1.0,0.0", "1.0,1.0")
        with pytest.raises(InputError, match=r"GroundTruth\.csv, line 2: both melanoma"):
            read_download(isic2017)

    def test_a_flag_is_0_or_1(self, isic2017):
        rewrite(isic2017 / "ISIC-2017_Training_Part3_GroundTruth.csv", "1.0,0.0", "0.5,0.0")
        with pytest.raises(InputError, match=r"line 2: melanoma '0\.5'; expected 0 or 1"):
            read_download(isic2017)


class TestIsic2020:
    def test_records(self, isic2020):
        layout, why, download = read_download(isic2020)
        assert (layout.name, why) == ("isic2020", "found train.csv")
        assert not download.official_split
        records = by_id(download)
        assert [r.diagnosis for r in records.values()] == ["", "NV", "MEL", ""]
        assert [r.malignant for r in records.values()] == [0, 0, 1, 0]
        assert [r.patient_id for r in records.values()] == ["IP_1", "IP_1", "IP_2", "IP_2"]
        blank = records["ISIC_0000002"]
        assert (blank.age_approx, blank.sex, blank.anatom_site_general) == (None, "", "")
        assert records["ISIC_0000003"].anatom_site_general == "head/neck"
        assert records["ISIC_0000004"].extra == {"source_diagnosis": "lentigo NOS"}
        assert {r.license for r in records.values()} == {"CC-BY-NC-4.0"}
        assert all("10.34970/2020-ds01" in r.attribution for r in records.values())
        assert {r.split for r in records.values()} == {"unused"}

    @pytest.mark.parametrize("table", LAYOUTS["isic2020"].signs)
    @pytest.mark.parametrize("place", ["train", "jpeg/train", "ISIC_2020_Training_JPEG/train"])
    def test_every_name_that_the_set_comes_under(self, isic2020, table, place):
        (isic2020 / "train.csv").rename(isic2020 / table)
        (isic2020 / "train").rename(isic2020 / "moved")
        (isic2020 / place).parent.mkdir(parents=True, exist_ok=True)
        (isic2020 / "moved").rename(isic2020 / place)
        _, why, download = read_download(isic2020)
        assert why == f"found {table}"
        assert {image.path.parent for image in download.images} == {isic2020 / place}

    def test_dicom_beside_jpeg_does_not_hide_it(self, isic2020):
        (isic2020 / "jpeg").mkdir()
        (isic2020 / "train").rename(isic2020 / "jpeg" / "train")
        (isic2020 / "train").mkdir()
        (isic2020 / "train" / "ISIC_0000001.dcm").write_bytes(b"DICM")
        assert len(read_download(isic2020)[2].images) == 4

    def test_lesion_ids_of_v2_are_read(self, isic2020):
        lines = (isic2020 / "train.csv").read_text().splitlines()
        with_lesion = [lines[0] + ",lesion_id", *(f"{line},IL_{i}" for i, line in enumerate(lines[1:]))]
        (isic2020 / "train.csv").unlink()
        (isic2020 / "ISIC_2020_Training_GroundTruth_v2.csv").write_text("\n".join(with_lesion))
        assert by_id(read_download(isic2020)[2])["ISIC_0000002"].lesion_id == "IL_1"

    def test_the_second_of_a_duplicate_pair_is_dropped_if_the_first_is_there(self, isic2020):
        (isic2020 / "ISIC_2020_Training_Duplicates.csv").write_text(
            "image_name_1,image_name_2\nISIC_0000001,ISIC_0000002\nISIC_9999999,ISIC_0000003\n"
        )
        (isic2020 / "train" / "ISIC_0000002.jpg").unlink()  # a dropped image need not be there
        _, _, download = read_download(isic2020)
        assert list(by_id(download)) == ["ISIC_0000001", "ISIC_0000003", "ISIC_0000004"]
        assert download.duplicates_dropped == 1
        assert isic2020 / "ISIC_2020_Training_Duplicates.csv" in download.tables

    @pytest.mark.parametrize("pairs", ["a,b\nb,c\n", "b,c\na,b\n", "a,b\nb,a\na,c\n"])
    def test_of_a_chain_of_duplicates_one_stays(self, tmp_path, pairs):
        table = tmp_path / "pairs.csv"
        table.write_text("image_name_1,image_name_2\n" + pairs)
        assert _second_of_pairs(table, {"a", "b", "c"}) == {"b", "c"}

    def test_images_without_a_row_are_counted_and_left_out(self, isic2020):
        draw(isic2020 / "train" / "ISIC_0000009.jpg")
        _, _, download = read_download(isic2020)
        assert download.files_without_row == 1
        assert len(download.images) == 4


class TestBadInput:
    def test_unknown_layout_lists_what_was_looked_for(self, tmp_path):
        (tmp_path / "holiday.jpg").write_bytes(b"")
        with pytest.raises(InputError, match="no known ISIC layout") as error:
            read_download(tmp_path)
        for layout in LAYOUTS.values():
            assert all(sign in str(error.value) for sign in layout.signs)

    def test_two_layouts_in_one_folder_ask_for_a_choice(self, isic2017):
        (isic2017 / "train.csv").write_text(COLUMNS_2020)
        with pytest.raises(InputError, match=r"isic2017 .*isic2020 .*--layout"):
            read_download(isic2017)
        assert read_download(isic2017, "isic2017")[1] == "named by --layout"

    def test_a_layout_named_wrongly_says_what_it_misses(self, isic2017):
        with pytest.raises(InputError, match=r"train\.csv: no such file"):
            read_download(isic2017, "isic2020")

    def test_missing_empty_and_file(self, tmp_path):
        with pytest.raises(InputError, match="no such folder"):
            read_download(tmp_path / "nowhere")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="the folder is empty"):
            read_download(tmp_path / "empty")
        (tmp_path / "archive.zip").write_bytes(b"PK")
        with pytest.raises(InputError, match="unpack it"):
            read_download(tmp_path / "archive.zip")

    def test_a_table_without_rows(self, isic2020):
        (isic2020 / "train.csv").write_text(COLUMNS_2020 + "\n")
        with pytest.raises(InputError, match="no rows"):
            read_download(isic2020)

    @pytest.mark.parametrize("column", ["image_name", "patient_id", "target"])
    def test_a_missing_column_is_named(self, isic2020, column):
        rewrite(isic2020 / "train.csv", f"{column}", "other")
        with pytest.raises(InputError, match=rf"train\.csv: column {column} is missing; found .*other"):
            read_download(isic2020)

    def test_missing_images_are_counted_and_the_first_named(self, isic2020):
        for number in (1, 3):
            (isic2020 / "train" / f"ISIC_000000{number}.jpg").unlink()
        with pytest.raises(InputError, match=r"2 of 4 images .* missing: ISIC_0000001, ISIC_0000003"):
            read_download(isic2020)

    def test_a_repeated_id_is_an_error(self, isic2020):
        rewrite(isic2020 / "train.csv", "ISIC_0000002", "ISIC_0000001")
        with pytest.raises(InputError, match=r"line 3: image_name 'ISIC_0000001' occurs twice"):
            read_download(isic2020)

    @pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "train/ISIC_0000001", "..", "", "a b", "a\\b"])
    def test_a_name_with_path_parts_is_an_error(self, isic2020, name):
        rewrite(isic2020 / "train.csv", "ISIC_0000002", name)
        with pytest.raises(InputError, match=r"line 3: image_name .*expected an image name"):
            read_download(isic2020)

    def test_two_files_of_one_image_are_an_error(self, isic2020):
        draw(isic2020 / "train" / "ISIC_0000001.png")
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
    def test_a_bad_cell_is_named_by_line(self, isic2020, old, new, message):
        rewrite(isic2020 / "train.csv", old, new)
        with pytest.raises(InputError, match=message):
            read_download(isic2020)

    def test_no_message_holds_a_patient_id(self, isic2020):
        rewrite(isic2020 / "train.csv", "nevus,benign,0", "nevus")
        with pytest.raises(InputError) as error:
            read_download(isic2020)
        assert "IP_" not in str(error.value)

    def test_a_table_that_is_not_text(self, isic2020):
        (isic2020 / "train.csv").write_bytes(b"image_name,patient_id,target\n\xff\xfe\n")
        with pytest.raises(InputError, match="not a CSV in UTF-8"):
            read_download(isic2020)


@pytest.mark.real_data
class TestRealData:
    def test_isic2017(self, real_data):
        layout, _, download = read_download(real_data / "isic2017")
        assert layout.name == "isic2017"
        counts = Counter((image.record.split, image.record.diagnosis) for image in download.images)
        assert counts == {
            ("train", "MEL"): 374,
            ("train", "SK"): 254,
            ("train", "NV"): 1372,
            ("val", "MEL"): 30,
            ("val", "SK"): 42,
            ("val", "NV"): 78,
            ("test", "MEL"): 117,
            ("test", "SK"): 90,
            ("test", "NV"): 393,
        }

    def test_isic2020(self, real_data):
        layout, _, download = read_download(real_data / "isic2020")
        assert layout.name == "isic2020"
        records = [image.record for image in download.images]
        assert len(records) == 643
        assert len({r.patient_id for r in records}) == 31
        assert sum(r.malignant for r in records) == 21
        assert sum(r.diagnosis == "MEL" for r in records) == 21

    def test_the_official_list_of_duplicates(self, real_data):
        table = real_data / "isic_csv" / "ISIC_2020_Training_GroundTruth.csv"
        everything = {line.split(",")[0] for line in table.read_text().splitlines()[1:]}
        assert len(everything) == 33126
        dropped = _second_of_pairs(real_data / "isic_csv" / "ISIC_2020_Training_Duplicates.csv", everything)
        assert len(dropped) == 425
