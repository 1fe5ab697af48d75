"""A folder a class."""

import pytest

from dermsynth.data.prepare.layouts.download import Choices
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import read, touch


def make(folder, *names):
    for name in names:
        touch(folder / name)
    return folder


@pytest.fixture
def folder(tmp_path):
    return make(tmp_path / "photographs", "benign/a.jpg", "benign/b.png", "Malignant/c.jpg", "readme/notes.txt")


def test_the_folders_name_is_the_label(folder):
    layout, why, _ = read_download(folder)
    assert (layout.name, why) == ("folders", "found folders Malignant, benign")
    records, download = read(folder)
    assert {name: r.malignant for name, r in records.items()} == {"a": 0, "b": 0, "c": 1}
    assert {r.diagnosis for r in records.values()} == {""}
    assert {r.source for r in records.values()} == {"photographs"}
    assert {r.split for r in records.values()} == {"unused"}
    assert not download.official_split


@pytest.mark.parametrize(
    ("name", "diagnosis", "malignant"),
    [
        ("MEL", "MEL", 1),
        ("melanoma", "MEL", 1),
        ("nv", "NV", 0),
        ("Basal_Cell-Carcinoma", "BCC", 1),
        ("actinic keratosis", "AK", None),
        ("akiec", "AKIEC", None),
        ("vascular lesion", "VASC", 0),
        ("unknown", "", None),
    ],
)
def test_codes_and_names_however_spelt(tmp_path, name, diagnosis, malignant):
    make(tmp_path / "set", f"{name}/a.jpg")
    records, _ = read(tmp_path / "set")
    assert (records["a"].diagnosis, records["a"].malignant) == (diagnosis, malignant)


def test_names_that_are_no_labels_are_listed_and_can_be_mapped(tmp_path):
    folder = make(tmp_path / "set", "moles/a.jpg", "moles/b.jpg", "bad ones/c.jpg", "MEL/d.jpg")
    with pytest.raises(InputError, match=r"(?s)no known layout.*--layout folders or csv"):
        read(folder)
    with pytest.raises(InputError, match=r"labels that are not known: 'moles' \(2\), 'bad ones' \(1\).*--labels"):
        read(folder, "folders")
    records, _ = read(folder, "auto", Choices(labels={"moles": "nevus", "bad_ones": "malignant"}))
    assert [(r.diagnosis, r.malignant) for r in records.values()] == [("MEL", 1), ("", 1), ("NV", 0), ("NV", 0)]


def test_a_mapping_to_nothing_known_is_an_error(folder):
    with pytest.raises(InputError, match=r"--labels\.benign harmless: 'harmless' is no code or name out of MEL"):
        read(folder, "folders", Choices(labels={"benign": "harmless"}))


def test_train_val_and_test_above_the_classes_are_an_official_split(tmp_path):
    folder = make(
        tmp_path / "set", *(f"{split}/{c}/{split}{c}.jpg" for split in ("train", "valid", "test") for c in "ab")
    )
    records, download = read(folder, "auto", Choices(labels={"a": "NV", "b": "MEL"}))
    assert {(r.split, r.diagnosis) for r in records.values()} == {
        (split, code) for split in ("train", "val", "test") for code in ("NV", "MEL")
    }
    assert download.official_split


def test_train_and_test_alone_are_one_too_and_train_alone_is_none(tmp_path):
    _, download = read(make(tmp_path / "set", "train/nv/a.jpg", "test/nv/b.jpg"))
    assert download.official_split
    _, download = read(make(tmp_path / "train", "train/nv/a.jpg", "val/nv/b.jpg"))
    assert not download.official_split


def test_names_that_repeat_get_their_folders_name(tmp_path):
    records, _ = read(make(tmp_path / "set", "benign/1.jpg", "malignant/1.jpg", "malignant/2.jpg"))
    assert {name: r.malignant for name, r in records.items()} == {"benign_1": 0, "malignant_1": 1, "malignant_2": 1}


def test_odd_characters_do_not_reach_the_set(tmp_path):
    records, _ = read(make(tmp_path / "set", "benign/mole (1).jpg", "benign/fête.png"))
    assert [r.file_name for r in records.values()] == ["images/f_te.png", "images/mole_1_.png"]
    with pytest.raises(InputError, match="would both become mole_1_"):
        read(make(tmp_path / "set", "benign/mole [1].jpg"))


def test_class_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"benign: no image in this class folder \(it holds \.txt 1\)"):
        read(make(tmp_path / "set", "benign/notes.txt"))
    with pytest.raises(InputError, match="no image in this class folder"):
        read(tmp_path / "set", "folders")


def test_files_of_other_suffixes_are_counted_and_a_class_without_an_image_is_refused(tmp_path):
    folder = make(
        tmp_path / "set", "nv/a.jpg", "mel/b.png", "mel/c.bmp", "mel/d.GIF", "mel/e.bmp", "mel/b_superpixels.png"
    )
    _, download = read(folder)
    assert download.notes == (
        "mel: files passed over (.bmp 2, .gif 1, _superpixels.png 1); only .jpg, .jpeg, .png, .dcm are read",
    )
    (folder / "mel" / "b.png").unlink()
    with pytest.raises(InputError, match=r"mel: no image in this class folder \(it holds \.bmp 2, \.gif 1,"):
        read(folder)


def test_images_in_no_class_folder_or_below_one_are_counted_and_named(tmp_path):
    folder = make(tmp_path / "set", "nv/a.jpg", "nv/more/x.jpg", "nv/more/deep/z.jpg", "mel/b.png", "stray.jpg")
    records, download = read(folder)
    assert set(records) == {"a", "b"}
    assert download.notes == (
        "3 images passed over, which do not lie directly in a class folder: "
        "nv/more/deep/z.jpg, nv/more/x.jpg, stray.jpg",
    )
    make(tmp_path / "parts", "train/nv/a.jpg", "train/y.jpg", "test/nv/b.jpg")
    _, download = read(tmp_path / "parts")
    assert download.notes == ("1 image passed over, which does not lie directly in a class folder: train/y.jpg",)
