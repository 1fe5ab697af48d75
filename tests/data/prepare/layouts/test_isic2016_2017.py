"""The challenges of 2016 and 2017."""

import shutil
from collections import Counter

import pytest

from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import read, rewrite, touch, write


def test_records(isic2017):
    layout, why, _ = read_download(isic2017)
    records, download = read(isic2017)
    assert (layout.name, why) == ("isic2017", "found ISIC-2017_Training_Part3_GroundTruth.csv")
    assert download.official_split
    assert len(download.tables) == 6
    assert [r.diagnosis for r in records.values()] == ["MEL", "SK", "NV", "MEL", "NV", "MEL"]
    assert [r.malignant for r in records.values()] == [1, 0, 0, 1, 0, 1]
    assert [r.split for r in records.values()] == ["train", "train", "val", "val", "test", "test"]
    first, second = records["ISIC_0000000"], records["ISIC_0000001"]
    assert (first.age_approx, first.sex) == (55.0, "female")
    assert (second.age_approx, second.sex) == (None, "")
    assert (first.license, first.source, first.origin) == ("CC0-1.0", "isic2017", "real")
    assert "2017" in first.attribution


def test_superpixels_are_not_images(isic2017):
    _, _, download = read_download(isic2017)
    assert all(image.path.suffix == ".jpg" for image in download.images)
    assert download.files_without_row == 0


def test_metadata_may_be_missing(isic2017):
    (isic2017 / "ISIC-2017_Test_v2_Data" / "ISIC-2017_Test_v2_Data_metadata.csv").unlink()
    assert read(isic2017)[0]["ISIC_0000004"].sex == ""


def test_one_part_alone_has_no_official_split(isic2017):
    shutil.rmtree(isic2017 / "ISIC-2017_Test_v2_Data")
    (isic2017 / "ISIC-2017_Test_v2_Part3_GroundTruth.csv").unlink()
    _, _, download = read_download(isic2017)
    assert not download.official_split
    assert len(download.images) == 4


def test_images_without_their_table_are_an_error(isic2017):
    (isic2017 / "ISIC-2017_Validation_Part3_GroundTruth.csv").unlink()
    with pytest.raises(InputError, match=r"Validation_Part3_GroundTruth\.csv: no such file"):
        read_download(isic2017)


def test_two_diagnoses_of_one_image_are_an_error(isic2017):
    rewrite(isic2017 / "ISIC-2017_Training_Part3_GroundTruth.csv", "1.0,0.0", "1.0,1.0")
    with pytest.raises(InputError, match=r"GroundTruth\.csv, line 2: both melanoma"):
        read_download(isic2017)


def test_a_flag_is_0_or_1(isic2017):
    rewrite(isic2017 / "ISIC-2017_Training_Part3_GroundTruth.csv", "1.0,0.0", "0.5,0.0")
    with pytest.raises(InputError, match=r"line 2: melanoma '0\.5'; expected 0 or 1"):
        read_download(isic2017)


@pytest.fixture
def isic2016(tmp_path):
    folder = tmp_path / "isic2016"
    write(folder / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv", "ISIC_0000000,benign", "ISIC_0000002,malignant")
    write(folder / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv", "ISIC_0000003,0.0", "ISIC_0000013,1.0")
    for part, names in {"Training": ("0", "2"), "Test": ("3", "13")}.items():
        for name in names:
            touch(folder / f"ISBI2016_ISIC_Part3_{part}_Data" / f"ISIC_{name:0>7}.jpg")
    return folder


def test_the_tables_of_2016_have_no_header_and_no_diagnosis(isic2016):
    records, download = read(isic2016)
    assert [(r.image_id[-2:], r.malignant, r.diagnosis, r.split) for r in records.values()] == [
        ("00", 0, "", "train"),
        ("02", 1, "", "train"),
        ("03", 0, "", "test"),
        ("13", 1, "", "test"),
    ]
    assert download.official_split  # without a validation part, which is dealt from train


def test_part_3b_of_2016_has_masks_beside_the_images(isic2016):
    for path in [*isic2016.glob("*.csv"), *isic2016.glob("*_Data")]:
        path.rename(path.with_name(path.name.replace("Part3", "Part3B")))
    touch(isic2016 / "ISBI2016_ISIC_Part3B_Training_Data" / "ISIC_0000000_Segmentation.png")
    records, download = read(isic2016)
    assert len(records) == 4
    assert download.files_without_row == 0


def test_a_label_of_2016_is_one_of_two_words(isic2016):
    rewrite(isic2016 / "ISBI2016_ISIC_Part3_Training_GroundTruth.csv", "benign", "0.5")
    with pytest.raises(InputError, match=r"line 1: '0\.5'; expected benign or malignant"):
        read(isic2016)


def test_images_of_2016_without_their_table_are_an_error(isic2016):
    (isic2016 / "ISBI2016_ISIC_Part3_Test_GroundTruth.csv").unlink()
    with pytest.raises(InputError, match=r"Part3_Test_GroundTruth\.csv: no such file"):
        read(isic2016)


@pytest.mark.real_data
def test_the_official_counts_of_2017(real_data):
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
