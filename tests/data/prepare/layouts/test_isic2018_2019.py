"""HAM10000 and the challenges of 2018 and 2019."""

import shutil
from collections import Counter

import pytest

from dermsynth.data.prepare.layouts.download import Choices
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import lay_out, read, rewrite, touch, write


@pytest.fixture
def ham10000(tmp_path):
    folder = tmp_path / "ham"
    write(
        folder / "HAM10000_metadata.csv",
        "lesion_id,image_id,dx,dx_type,age,sex,localization",
        "HAM_1,ISIC_0000001,bkl,histo,80.0,male,scalp",
        "HAM_1,ISIC_0000002,bkl,histo,80.0,male,scalp",
        "HAM_2,ISIC_0000003,akiec,histo,,unknown,unknown",
    )
    touch(folder / "HAM10000_images_part_1" / "ISIC_0000001.jpg")
    touch(folder / "HAM10000_images_part_1" / "ISIC_0000002.jpg")
    touch(folder / "HAM10000_images_part_2" / "ISIC_0000003.jpg")
    return folder


@pytest.fixture
def isic2019(tmp_path):
    folder = tmp_path / "isic2019"
    write(
        folder / "ISIC_2019_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_0000001,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000002_downsampled,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000003,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0",
    )
    write(
        folder / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000001,55,anterior torso,,female",
        "ISIC_0000002_downsampled,,,MSK4_1,",
        "ISIC_0000003,30,head/neck,HAM_1,male",
    )
    for name in ("ISIC_0000001", "ISIC_0000002_downsampled", "ISIC_0000003"):
        touch(folder / "ISIC_2019_Training_Input" / f"{name}.jpg")
    return folder


@pytest.fixture
def isic2018(tmp_path):
    """The three parts, their tables in folders as the archives unpack."""
    folder = tmp_path / "isic2018"
    for number, part in enumerate(("Training", "Validation", "Test")):
        name = f"ISIC2018_Task3_{part}_GroundTruth"
        row = ",".join("1.0" if i == number else "0.0" for i in range(7))
        write(folder / name / f"{name}.csv", "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", f"ISIC_000000{number},{row}")
        touch(folder / f"ISIC2018_Task3_{part}_Input" / f"ISIC_000000{number}.jpg")
    write(
        folder / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0000000,HAM_7,histopathology",
    )
    return folder


def test_ham10000(ham10000):
    records, download = read(ham10000)
    assert [(r.diagnosis, r.malignant, r.lesion_id) for r in records.values()] == [
        ("BKL", 0, "HAM_1"),
        ("BKL", 0, "HAM_1"),
        ("AKIEC", None, "HAM_2"),
    ]
    first, last = records["ISIC_0000001"], records["ISIC_0000003"]
    assert (first.age_approx, first.sex, first.anatom_site_general) == (80.0, "male", "scalp")
    assert (last.age_approx, last.sex, last.anatom_site_general) == (None, "", "")
    assert download.notes == (
        "actinic keratosis (AKIEC 1) counts as neither benign nor malignant; experts disagree, "
        "choose by --actinic_keratosis",
    )


@pytest.mark.parametrize(("choice", "malignant"), [("benign", 0), ("malignant", 1), ("indeterminate", None)])
def test_actinic_keratosis_is_the_users_choice(ham10000, isic2019, choice, malignant):
    for folder in (ham10000, isic2019):
        records, download = read(folder, "auto", Choices(actinic_keratosis=choice))
        disputed = [r for r in records.values() if r.diagnosis in ("AK", "AKIEC")]
        assert [r.malignant for r in disputed] == [malignant]
        assert "actinic keratosis" in download.notes[-1]
        others = [r.malignant for r in records.values() if r not in disputed]
        assert others == [0, 0] if folder == ham10000 else [0, None]


def test_the_dataverse_names_of_ham10000(ham10000):
    (ham10000 / "HAM10000_metadata.csv").rename(ham10000 / "HAM10000_metadata")
    layout, why, download = read_download(ham10000)
    assert (layout.name, why) == ("ham10000", "found HAM10000_metadata")
    assert len(download.images) == 3


def test_the_tab_of_dataverse_with_images_beside_it(ham10000):
    table = ham10000 / "HAM10000_metadata.csv"
    lines = [[f'"{cell}"' for cell in line.split(",")] for line in table.read_text().splitlines()]
    (ham10000 / "HAM10000_metadata.tab").write_text("\n".join(map("\t".join, lines)) + "\n")
    table.unlink()
    for path in ham10000.glob("*/*.jpg"):
        path.rename(ham10000 / path.name)
    layout, why, download = read_download(ham10000)
    assert (layout.name, why) == ("ham10000", "found HAM10000_metadata.tab")
    assert [(i.record.diagnosis, i.record.lesion_id) for i in download.images] == [
        ("BKL", "HAM_1"),
        ("BKL", "HAM_1"),
        ("AKIEC", "HAM_2"),
    ]
    assert download.files_without_row == 0


def test_an_unknown_dx_is_an_error(ham10000):
    rewrite(ham10000 / "HAM10000_metadata.csv", "akiec", "wart")
    with pytest.raises(InputError, match="line 4: dx 'wart'; expected one of mel, nv"):
        read(ham10000)


def test_isic2019(isic2019):
    records, download = read(isic2019)
    assert [(r.diagnosis, r.malignant, r.lesion_id) for r in records.values()] == [
        ("NV", 0, ""),
        ("AK", None, "MSK4_1"),
        ("", None, "HAM_1"),
    ]
    assert not download.official_split


def test_a_part_without_labels_is_left_out_and_said(isic2019):
    for number in range(2):
        touch(isic2019 / "ISIC_2019_Test_Input" / f"ISIC_000010{number}.jpg")
    records, download = read(isic2019)
    assert len(records) == 3
    note = "2 images of ISIC_2019_Test_Input left out, as ISIC_2019_Test_GroundTruth.csv is not there"
    assert note in download.notes


def test_a_shrunk_image_has_the_id_that_other_sets_give_it(isic2019):
    records, download = read(isic2019)
    assert "ISIC_0000002" in records
    assert download.images[1].path.name == "ISIC_0000002_downsampled.jpg"


def test_the_folder_in_a_folder_of_kaggle(isic2019):
    inner = isic2019 / "ISIC_2019_Training_Input"
    inner.rename(isic2019 / "moved")
    inner.mkdir()
    (isic2019 / "moved").rename(inner / "ISIC_2019_Training_Input")
    assert len(read(isic2019)[0]) == 3


@pytest.mark.parametrize(
    ("old", "new", "found"), [("0.0,1.0,0.0", "1.0,1.0,0.0", "MEL and NV"), ("0.0,1.0", "0.0,0.0", "none")]
)
def test_an_image_has_one_diagnosis(isic2019, old, new, found):
    rewrite(isic2019 / "ISIC_2019_Training_GroundTruth.csv", f"ISIC_0000001,{old}", f"ISIC_0000001,{new}")
    with pytest.raises(InputError, match=f"line 2: 1 in {found} of MEL, NV"):
        read(isic2019)


def test_lesions_are_not_optional(isic2019, isic2018):
    (isic2019 / "ISIC_2019_Training_Metadata.csv").unlink()
    (isic2018 / "ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    for folder in (isic2019, isic2018):
        with pytest.raises(InputError, match="photographs of one lesion would come to lie in several splits"):
            read(folder)


def test_every_image_has_a_row_in_the_table_of_lesions(isic2019):
    rewrite(isic2019 / "ISIC_2019_Training_Metadata.csv", "ISIC_0000003,", "ISIC_0000033,")
    with pytest.raises(InputError, match=r"1 of 3 images .* missing: ISIC_0000003\. Looked in .*Metadata\.csv"):
        read(isic2019)


def test_a_table_of_lesions_without_lesions_is_an_error(isic2019):
    rewrite(isic2019 / "ISIC_2019_Training_Metadata.csv", "lesion_id", "lesion")
    with pytest.raises(InputError, match="column lesion_id is missing"):
        read(isic2019)


def test_isic2018_has_an_official_split(isic2018):
    records, download = read(isic2018)
    assert [(r.split, r.diagnosis, r.lesion_id) for r in records.values()] == [
        ("train", "MEL", "HAM_7"),
        ("val", "NV", ""),
        ("test", "BCC", ""),
    ]
    assert download.official_split


def test_isic2018_without_its_test_labels_has_none(isic2018):
    shutil.rmtree(isic2018 / "ISIC2018_Task3_Test_GroundTruth")
    records, download = read(isic2018)
    assert len(records) == 2
    assert not download.official_split


@pytest.mark.real_data
class TestOfficialCounts:
    def test_ham10000(self, real_data, tmp_path):
        table = real_data / "isic_csv" / "HAM10000_metadata.csv"
        lay_out(tmp_path, table, "image_id", "HAM10000_images_part_1", "HAM10000_images_part_2")
        records, _ = read(tmp_path)
        # Tschandl et al. 2018, table 1; ISIC 2018 task 3 has the same images and classes.
        assert Counter(r.diagnosis for r in records.values()) == {
            "NV": 6705,
            "MEL": 1113,
            "BKL": 1099,
            "BCC": 514,
            "AKIEC": 327,
            "VASC": 142,
            "DF": 115,
        }
        assert len({r.lesion_id for r in records.values()}) == 7470

    def test_isic2019(self, real_data, tmp_path):
        truth, about = (real_data / "isic_csv" / f"ISIC_2019_Training_{end}.csv" for end in ("GroundTruth", "Metadata"))
        names = lay_out(tmp_path, truth, "image", "ISIC_2019_Training_Input")
        shutil.copy(about, tmp_path)
        records, _ = read(tmp_path)
        assert len(records) == len(names) == 25331
        assert Counter(r.diagnosis for r in records.values()) == {
            "NV": 12875,
            "MEL": 4522,
            "BCC": 3323,
            "BKL": 2624,
            "AK": 867,
            "SCC": 628,
            "VASC": 253,
            "DF": 239,
        }
        assert sum(r.lesion_id == "" for r in records.values()) == 2084
        assert len({r.lesion_id for r in records.values()} - {""}) == 11847
        assert sum(name.endswith("_downsampled") for name in names) == 2074
        assert not any(name.endswith("_downsampled") for name in records)
