"""Downloads of the archive's command line, and MILK10k."""

import pytest

from dermsynth.data.prepare.layouts.download import Choices
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import read, rewrite, touch, write
from tests.rights import without_rights

HEADER = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,"
    "diagnosis_4,fitzpatrick_skin_type,image_manipulation,image_type,lesion_id,patient_id,sex"
)
MELANOCYTIC = "Malignant,Malignant melanocytic proliferations (Melanoma)"
ROWS = (
    f"ISIC_0000001,Anonymous,CC-0,55,anterior torso,{MELANOCYTIC},Melanoma Invasive,,II,,dermoscopic,IL_1,IP_1,female",
    "ISIC_0000002,MSK,CC-BY,,,Benign,Benign melanocytic proliferations,Nevus,Nevus Spitz,,altered,dermoscopic,,,",
    "ISIC_0000003,MSK,CC-BY-NC,40,,Indeterminate,Indeterminate epidermal proliferations,Solar or actinic keratosis,,,,"
    "dermoscopic,IL_3,,male",
    "ISIC_0000004,MSK,CC-BY-NC,40,,Benign,Cysts,Milium,,,,dermoscopic,,,",
    "ISIC_0000005,MSK,CC-BY-NC,40,,Benign,,,,,,clinical: close-up,IL_1,,",
    "ISIC_0000006,MSK,CC-BY-NC,40,,,,,,,,,,,",
    "ISIC_0000007,A generator,CC-BY-NC,,,Malignant,,,,,synthetic,dermoscopic,,,",
)


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    write(folder / "metadata.csv", HEADER, *ROWS)
    for row in ROWS:
        touch(folder / f"{row[:12]}.{'png' if row[11] == '2' else 'jpg'}")
    touch(folder / "licenses" / "CC-0.txt")
    return folder


def test_records(archive):
    layout, why, _ = read_download(archive)
    assert (layout.name, why) == ("archive", "found metadata.csv with column isic_id")
    records, download = read(archive)
    assert [(r.diagnosis, r.malignant, r.extra["source_diagnosis"]) for r in records.values()] == [
        ("MEL", 1, "Melanoma Invasive"),
        ("NV", 0, "Nevus Spitz"),
        ("AK", None, "Solar or actinic keratosis"),
        ("", 0, "Milium"),
    ]
    first, second = records["ISIC_0000001"], records["ISIC_0000002"]
    assert (first.patient_id, first.lesion_id, first.sex, first.age_approx) == ("IP_1", "IL_1", "female", 55.0)
    assert (first.skin_tone, second.skin_tone) == ("Fitzpatrick II", "")
    assert (first.image_manipulation, second.image_manipulation) == ("", "altered")
    assert download.files_without_row == 0


def test_licence_and_credit_are_each_images_own(archive):
    records, _ = read(archive)
    assert [(r.license, r.attribution) for r in records.values()][:3] == [
        ("CC0-1.0", "Anonymous"),
        ("CC-BY-4.0", "MSK"),
        ("CC-BY-NC-4.0", "MSK"),
    ]


def test_images_that_are_not_dermoscopic_are_left_out_and_counted(archive):
    records, download = read(archive)
    assert "ISIC_0000005" not in records
    assert download.notes[0] == (
        "2 images left out that are not dermoscopic (clinical: close-up 1, not said 1); --image_types all takes them"
    )
    everything, _ = read(archive, "auto", Choices(image_types="all"))
    assert everything["ISIC_0000005"].extra["image_type"] == "clinical: close-up"
    assert len(everything) == 6


def test_a_download_without_dermoscopic_images_is_an_error(archive):
    (archive / "metadata.csv").write_text((archive / "metadata.csv").read_text().replace("dermoscopic", "RCM: tile"))
    with pytest.raises(InputError, match=r"no image of image_type dermoscopic \(RCM: tile 5.*--image_types all"):
        read(archive)


def test_synthetic_images_are_left_out_of_a_real_set(archive):
    records, download = read(archive, "auto", Choices(image_types="all"))
    assert "ISIC_0000007" not in records
    assert "1 synthetic images left out: `adopt` takes those, as a set of their own" in download.notes


def test_images_that_are_left_out_need_not_be_there(archive):
    (archive / "ISIC_0000005.jpg").unlink()
    touch(archive / "ISIC_9999999.jpg")
    records, download = read(archive)
    assert len(records) == 4
    assert download.files_without_row == 1
    (archive / "ISIC_0000004.jpg").unlink()
    with pytest.raises(InputError, match="1 of 4 images that it names are missing: ISIC_0000004"):
        read(archive)


def test_columns_vary_with_the_query(tmp_path):
    write(
        tmp_path / "metadata.csv",
        "isic_id,attribution,copyright_license,image_type,benign_malignant",
        "ISIC_1,A,CC-0,dermoscopic,malignant",
    )
    touch(tmp_path / "ISIC_1.jpg")
    records, _ = read(tmp_path)
    assert records["ISIC_1"].malignant == 1


def test_malignancies_that_contradict_each_other_are_counted(tmp_path):
    folder = tmp_path / "archive"
    said = ["Benign,malignant", "Malignant,benign", "Benign,benign", "Indeterminate,malignant", ",malignant"]
    rows = [f"ISIC_000000{number},MSK,CC-0,dermoscopic,{words}" for number, words in enumerate(said)]
    write(
        folder / "metadata.csv", "isic_id,attribution,copyright_license,image_type,diagnosis_1,benign_malignant", *rows
    )
    for row in rows:
        touch(folder / f"{row[:12]}.jpg")
    records, download = read(folder)
    assert [r.malignant for r in records.values()] == [0, 1, 0, None, 1]
    assert download.notes == ("WARNING: diagnosis_1 contradicts benign_malignant in 2 rows; diagnosis_1 decides",)


def test_a_table_beside_the_folder_of_images(archive):
    (archive / "images").mkdir()
    for path in archive.glob("ISIC_*"):
        path.rename(archive / "images" / path.name)
    assert len(read(archive)[0]) == 4
    (archive / "metadata.csv").rename(archive / "images" / "metadata.csv")
    _, why, download = read_download(archive)
    assert why == "found images/metadata.csv with column isic_id"
    assert len(download.images) == 4


def test_another_metadata_csv_is_no_archive(tmp_path):
    write(tmp_path / "metadata.csv", "file_name,image_id", "a.jpg,a")
    with pytest.raises(InputError, match="no known layout"):
        read(tmp_path)


def test_a_table_that_cannot_be_read_is_named_and_not_passed_over(archive):
    table = archive / "metadata.csv"
    with without_rights(table), pytest.raises(InputError) as error:
        read(archive)
    assert str(error.value) == f"{table}: cannot be read (Permission denied)."


CLASSES = "AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"


@pytest.fixture
def milk10k(tmp_path):
    """One lesion of each class, each with a dermoscopic and a clinical photograph."""
    folder = tmp_path / "milk10k"
    truth = [f"IL_{i}," + ",".join("1.0" if i == j else "0.0" for j in range(11)) for i in range(11)]
    about = []
    for i in range(11):
        for kind, number in (("clinical: close-up", 2 * i), ("dermoscopic", 2 * i + 1)):
            about.append(f"IL_{i},{kind},ISIC_{number:07d},MILK study team,CC-BY-NC,,50,female,{i % 6},trunk,0.1")
            touch(folder / "MILK10k_Training_Input" / f"IL_{i}" / f"ISIC_{number:07d}.jpg")
    header = "lesion_id,image_type,isic_id,attribution,copyright_license,image_manipulation,age_approx,sex"
    write(folder / "MILK10k_Training_GroundTruth.csv", f"lesion_id,{CLASSES}", *truth)
    write(folder / "MILK10k_Training_Metadata.csv", f"{header},skin_tone_class,site,MONET_hair", *about)
    return folder


def test_milk10k(milk10k):
    records, download = read(milk10k)
    assert {r.extra["source_diagnosis"]: (r.diagnosis, r.malignant) for r in records.values()} == {
        "AKIEC": ("AKIEC", None),
        "BCC": ("BCC", 1),
        "BEN_OTH": ("", 0),
        "BKL": ("BKL", 0),
        "DF": ("DF", 0),
        "INF": ("", 0),
        "MAL_OTH": ("", 1),
        "MEL": ("MEL", 1),
        "NV": ("NV", 0),
        "SCCKA": ("SCC", 1),
        "VASC": ("VASC", 0),
    }
    assert all(r.extra["image_type"] == "dermoscopic" for r in records.values())
    assert records["ISIC_0000007"].skin_tone == "MILK10k 3"
    assert download.notes[0].startswith("11 images left out that are not dermoscopic (clinical: close-up 11)")
    assert download.files_without_row == 0


def test_milk10k_with_its_clinical_photographs_keeps_pairs_by_lesion(milk10k):
    records, _ = read(milk10k, "auto", Choices(image_types="all"))
    assert len(records) == 22
    assert records["ISIC_0000000"].lesion_id == records["ISIC_0000001"].lesion_id == "IL_0"


def test_a_lesion_without_a_diagnosis_is_an_error(milk10k):
    rewrite(milk10k / "MILK10k_Training_GroundTruth.csv", "IL_3,", "IL_33,")
    with pytest.raises(InputError, match="lesion_id 'IL_3' has no row in"):
        read(milk10k)
