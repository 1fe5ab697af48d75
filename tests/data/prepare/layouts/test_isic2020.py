"""The challenge of 2020."""

import shutil

import pytest

from dermsynth.data.prepare.layouts.isic2020 import second_of_pairs
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import cells, lay_out, read, rewrite, touch, write


def test_records(isic2020):
    layout, why, _ = read_download(isic2020)
    records, download = read(isic2020)
    assert (layout.name, why) == ("isic2020", "found train.csv")
    assert not download.official_split
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


@pytest.mark.parametrize(
    "table", ["train.csv", "ISIC_2020_Training_GroundTruth.csv", "ISIC_2020_Training_GroundTruth_v2.csv"]
)
@pytest.mark.parametrize("place", ["train", "jpeg/train", "ISIC_2020_Training_JPEG/train"])
def test_every_name_that_the_set_comes_under(isic2020, table, place):
    (isic2020 / "train.csv").rename(isic2020 / table)
    (isic2020 / "train").rename(isic2020 / "moved")
    (isic2020 / place).parent.mkdir(parents=True, exist_ok=True)
    (isic2020 / "moved").rename(isic2020 / place)
    _, why, download = read_download(isic2020)
    assert why == f"found {table}"
    assert {image.path.parent for image in download.images} == {isic2020 / place}


def test_dicom_beside_jpeg_does_not_hide_it(isic2020):
    (isic2020 / "jpeg").mkdir()
    (isic2020 / "train").rename(isic2020 / "jpeg" / "train")
    (isic2020 / "train").mkdir()
    (isic2020 / "train" / "ISIC_0000001.dcm").write_bytes(b"DICM")
    assert {image.path.suffix for image in read(isic2020)[1].images} == {".jpg"}


def test_lesion_ids_of_v2_are_read(isic2020):
    lines = (isic2020 / "train.csv").read_text().splitlines()
    with_lesion = [lines[0] + ",lesion_id", *(f"{line},IL_{i}" for i, line in enumerate(lines[1:]))]
    (isic2020 / "train.csv").unlink()
    (isic2020 / "ISIC_2020_Training_GroundTruth_v2.csv").write_text("\n".join(with_lesion))
    assert read(isic2020)[0]["ISIC_0000002"].lesion_id == "IL_1"


def test_the_second_of_a_duplicate_pair_is_dropped_if_the_first_is_there(isic2020):
    (isic2020 / "ISIC_2020_Training_Duplicates.csv").write_text(
        "image_name_1,image_name_2\nISIC_0000001,ISIC_0000002\nISIC_9999999,ISIC_0000003\n"
    )
    assert read(isic2020)[1].files_without_row == 0
    (isic2020 / "train" / "ISIC_0000002.jpg").unlink()  # a dropped image need not be there
    records, download = read(isic2020)
    assert list(records) == ["ISIC_0000001", "ISIC_0000003", "ISIC_0000004"]
    assert download.duplicates_dropped == 1
    assert isic2020 / "ISIC_2020_Training_Duplicates.csv" in download.tables


@pytest.mark.parametrize("pairs", ["a,b\nb,c\n", "b,c\na,b\n", "a,b\nb,a\na,c\n"])
def test_of_a_chain_of_duplicates_one_stays(tmp_path, pairs):
    table = tmp_path / "pairs.csv"
    table.write_text("image_name_1,image_name_2\n" + pairs)
    assert second_of_pairs(table, {"a", "b", "c"}) == {"b", "c"}


def test_images_without_a_row_are_counted_and_left_out(isic2020):
    touch(isic2020 / "train" / "ISIC_0000009.jpg")
    _, download = read(isic2020)
    assert download.files_without_row == 1
    assert len(download.images) == 4


def test_dicom_files_are_taken_where_there_is_no_jpeg(isic2020):
    for path in (isic2020 / "train").iterdir():
        path.rename(path.with_suffix(".dcm"))
    _, download = read(isic2020)
    assert {image.path.suffix for image in download.images} == {".dcm"}


TEST_PARTS = {
    "kaggle": ("test.csv", "image_name,patient_id,sex,age_approx,anatom_site_general_challenge", "jpeg/test", "jpg"),
    "kaggle-dicom": ("test.csv", "image_name,patient_id,sex,age_approx,anatom_site_general_challenge", "test", "dcm"),
    "site": ("ISIC_2020_Test_Metadata.csv", "image,patient,sex,age_approx,anatom_site_general", "test", "jpg"),
    "site-folder": (
        "ISIC_2020_Test_Metadata.csv",
        "image,patient,sex,age_approx,anatom_site_general",
        "ISIC_2020_Test_JPEG/ISIC_2020_Test_Input",
        "jpg",
    ),
}


def add_test_part(folder, kind="kaggle"):
    """Two images of one more patient, without labels."""
    table, header, place, suffix = TEST_PARTS[kind]
    write(folder / table, header, "ISIC_0000011,IP_3,female,30,torso", "ISIC_0000012,IP_3,,,")
    for name in ("ISIC_0000011", "ISIC_0000012"):
        touch(folder / place / f"{name}.{suffix}")
    return folder / table


@pytest.mark.parametrize("kind", TEST_PARTS)
def test_the_test_part_has_patients_and_no_labels(isic2020, kind):
    table = add_test_part(isic2020, kind)
    records, download = read(isic2020)
    assert list(records)[-2:] == ["ISIC_0000011", "ISIC_0000012"]
    assert len(records) == 6
    one, other = records["ISIC_0000011"], records["ISIC_0000012"]
    assert (one.diagnosis, one.malignant, one.split) == ("", None, "test")
    assert (one.patient_id, one.sex, one.age_approx, one.anatom_site_general) == ("IP_3", "female", 30.0, "torso")
    assert (other.patient_id, other.sex, other.age_approx, other.anatom_site_general) == ("IP_3", "", None, "")
    assert one.license == "CC-BY-NC-4.0"
    assert table in download.tables
    assert not download.official_split
    assert download.notes == (f"2 images of {table.name} have no label; a split by shares leaves them in test",)


@pytest.mark.parametrize("kind", TEST_PARTS)
def test_the_test_part_may_be_alone(isic2020, kind):
    (isic2020 / "train.csv").unlink()
    table = add_test_part(isic2020, kind)
    layout, why, download = read_download(isic2020)
    assert (layout.name, why) == ("isic2020", f"found {table.name}")
    assert [image.record.image_id for image in download.images] == ["ISIC_0000011", "ISIC_0000012"]


def test_a_test_table_without_its_images_is_no_obstacle_and_half_of_them_are(isic2020):
    table = add_test_part(isic2020)
    shutil.rmtree(isic2020 / "jpeg")
    records, download = read(isic2020)
    assert len(records) == 4
    assert download.notes == ("the test part is left out, as none of the images of test.csv is there",)
    assert table not in download.tables
    touch(isic2020 / "test" / "ISIC_0000012.dcm")
    with pytest.raises(InputError, match=r"test\.csv: 1 of 2 images .* missing: ISIC_0000011"):
        read(isic2020)


def test_a_bad_cell_of_the_test_part_is_named(isic2020):
    rewrite(add_test_part(isic2020), ",30,", ",young,")
    with pytest.raises(InputError, match=r"test\.csv, line 2: age_approx 'young'"):
        read(isic2020)


@pytest.mark.real_data
def test_the_official_counts_of_the_test_part(real_data, tmp_path):
    table = real_data / "isic_csv" / "ISIC_2020_Test_Metadata.csv"
    lay_out(tmp_path, table, "image", "ISIC_2020_Test_Input")
    records, download = read(tmp_path)
    # 10,982 images of 690 patients (challenge2020.isic-archive.com), none of whom is in the training part.
    assert len(records) == 10982
    patients = {r.patient_id for r in records.values()}
    assert len(patients) == 690
    assert patients.isdisjoint(cells(real_data / "isic_csv" / "ISIC_2020_Training_GroundTruth.csv", "patient_id"))
    assert {(r.split, r.diagnosis, r.malignant) for r in records.values()} == {("test", "", None)}
    assert sum(r.anatom_site_general == "" for r in records.values()) == 351
    assert download.files_without_row == 0


@pytest.mark.real_data
def test_the_official_counts(real_data, tmp_path):
    official = real_data / "isic_csv"
    names = lay_out(tmp_path, official / "ISIC_2020_Training_GroundTruth.csv", "image_name", "train")
    records, _ = read(tmp_path)
    # 33,126 images, 2,056 patients, 584 melanomas (Rotemberg et al. 2021).
    assert len(records) == len(names) == 33126
    assert sum(r.malignant for r in records.values()) == 584
    assert sum(r.diagnosis == "MEL" for r in records.values()) == 584
    assert len({r.patient_id for r in records.values()}) == 2056
    assert sum(r.diagnosis == "" for r in records.values()) == 27124 + 44  # unknown, and lentigo NOS

    shutil.copy(official / "ISIC_2020_Training_Duplicates.csv", tmp_path)
    kept, download = read(tmp_path)
    assert download.duplicates_dropped == 425
    assert download.files_without_row == 0
    assert len(kept) == 33126 - 425
    assert sum(r.malignant for r in kept.values()) == 581
    assert len({r.patient_id for r in kept.values()}) == 2056


@pytest.mark.real_data
def test_a_real_part_of_2020(real_data):
    layout, _, download = read_download(real_data / "isic2020")
    assert layout.name == "isic2020"
    records = [image.record for image in download.images]
    assert len(records) == 643
    assert len({r.patient_id for r in records}) == 31
    assert sum(r.malignant for r in records) == 21
    assert sum(r.diagnosis == "MEL" for r in records) == 21


def test_the_diagnosis_decides_where_the_target_contradicts_it(isic2020):
    """Kaggle's copy of ISIC 2019 in these columns: its target is melanoma or not."""
    table = isic2020 / "train.csv"
    text = table.read_text().replace("unknown,benign,0", "BCC,benign,0").replace("nevus,benign,0", "AK,benign,0")
    table.write_text(text.replace("lentigo NOS,benign,0", "unknown,benign,0"))
    records, download = read(isic2020)
    assert [(r.diagnosis, r.malignant) for r in records.values()] == [
        ("BCC", 1),
        ("AK", None),
        ("MEL", 1),
        ("", None),  # that it is no melanoma says nothing of what it is
    ]
    assert "WARNING: 1 labels contradict the diagnosis (BCC called benign 1); the diagnosis decides" in download.notes
    table.write_text(table.read_text().replace("BCC,benign,0", "nevus,malignant,1"))
    records, download = read(isic2020)
    assert [r.malignant for r in records.values()] == [0, 0, 1, 0]
    assert any("NV called malignant 1" in note for note in download.notes)
