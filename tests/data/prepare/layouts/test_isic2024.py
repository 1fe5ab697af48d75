"""The challenge of 2024: HDF5, JPEGs, and the columns that must not be read."""

import sys
from dataclasses import asdict

import h5py
import numpy as np
import pytest

from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import read, rewrite, touch, write

HEADER = (
    "isic_id,target,patient_id,age_approx,sex,anatom_site_general,image_type,tbp_lv_A,attribution,copyright_license,"
    "lesion_id,iddx_full,iddx_1,mel_thick_mm,tbp_lv_dnn_lesion_confidence"
)
ROWS = (
    "ISIC_0015670,0,IP_1,60.0,male,lower extremity,TBP tile: close-up,20.2,Memorial,CC-BY,,Benign,Benign,,97.5",
    "ISIC_0015845,1,IP_2,NA,,,TBP tile: close-up,31.7,ACEMID,CC-BY-NC,IL_tell,Malignant::MEL,Malignant,0.4,3.1",
)


@pytest.fixture
def isic2024(tmp_path):
    """Kaggle's folder, with JPEGs."""
    folder = tmp_path / "isic2024"
    write(folder / "train-metadata.csv", HEADER, *ROWS)
    for row in ROWS:
        touch(folder / "train-image" / "image" / f"{row[:12]}.jpg")
    return folder


def make_hdf5(path, names):
    with h5py.File(path, "w") as file:
        for name in names:
            file[name] = np.void(b"JPEG bytes")


def test_records(isic2024):
    records, download = read(isic2024)
    first, second = records.values()
    assert (first.malignant, first.patient_id, first.age_approx, first.sex) == (0, "IP_1", 60.0, "male")
    assert (second.malignant, second.patient_id, second.age_approx, second.sex) == (1, "IP_2", None, "")
    assert [(r.license, r.attribution) for r in records.values()] == [
        ("CC-BY-4.0", "Memorial"),
        ("CC-BY-NC-4.0", "ACEMID"),
    ]
    assert {image.member for image in download.images} == {""}


def test_nothing_that_tells_the_label_is_carried_on(isic2024):
    records, download = read(isic2024)
    everything = str([asdict(record) for record in records.values()])
    for telltale in ("IL_tell", "Malignant", "MEL", "Benign", "0.4", "97.5", "3.1", "31.7"):
        assert telltale not in everything
    assert all(not r.lesion_id and not r.diagnosis and not r.extra for r in records.values())
    assert "lesion_id" in download.notes[0]
    assert "iddx_*" in download.notes[0]


def test_hdf5_members(isic2024):
    make_hdf5(isic2024 / "train-image.hdf5", ["ISIC_0015670", "ISIC_0015845", "ISIC_0099999"])
    _, download = read(isic2024)
    assert [(image.path.name, image.member) for image in download.images] == [
        ("train-image.hdf5", "ISIC_0015670"),
        ("train-image.hdf5", "ISIC_0015845"),
    ]
    assert download.files_without_row == 1


def test_a_file_system_without_locks_is_no_obstacle(isic2024, monkeypatch):
    make_hdf5(isic2024 / "train-image.hdf5", ["ISIC_0015670", "ISIC_0015845"])
    opened, file = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda *a, **how: opened.append(how) or file(*a, **how))
    read(isic2024)
    assert opened == [{"locking": "best-effort"}]


def test_a_row_without_a_member_is_an_error(isic2024):
    make_hdf5(isic2024 / "train-image.hdf5", ["ISIC_0015670"])
    with pytest.raises(InputError, match=r"1 of 2 images .* missing: ISIC_0015845\. Looked in .*train-image\.hdf5"):
        read(isic2024)


def test_half_an_hdf5_file_is_an_error(isic2024):
    (isic2024 / "train-image.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(InputError, match="not an HDF5 file, or not all of it"):
        read(isic2024)


def test_without_h5py_the_message_says_what_to_install(isic2024, monkeypatch):
    make_hdf5(isic2024 / "train-image.hdf5", ["ISIC_0015670", "ISIC_0015845"])
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install h5py"):
        read(isic2024)


def test_the_challenge_sites_names(isic2024, tmp_path):
    folder = tmp_path / "site"
    write(folder / "ISIC_2024_Training_GroundTruth.csv", "isic_id,malignant", "ISIC_0015670,0.0", "ISIC_0015845,1.0")
    columns = [i for i, name in enumerate(HEADER.split(",")) if name != "target"]
    lines = [",".join(np.array(line.split(","))[columns]) for line in (HEADER, *ROWS)]
    write(folder / "ISIC_2024_Training_Input" / "metadata.csv", *lines)
    for row in ROWS:
        touch(folder / "ISIC_2024_Training_Input" / f"{row[:12]}.jpg")
    layout, why, _ = read_download(folder)
    assert (layout.name, why) == ("isic2024", "found ISIC_2024_Training_GroundTruth.csv")
    assert read(folder)[0] == read(isic2024)[0]
    (folder / "ISIC_2024_Training_Input" / "metadata.csv").unlink()
    with pytest.raises(InputError, match="photographs of one patient would come to lie in several splits"):
        read(folder)


def test_a_target_is_0_or_1(isic2024):
    rewrite(isic2024 / "train-metadata.csv", "ISIC_0015845,1", "ISIC_0015845,2")
    with pytest.raises(InputError, match="line 3: target '2'; expected 0 or 1"):
        read(isic2024)


@pytest.mark.parametrize("inner", ["", "ISIC_2024_Permissive_Training_Input"])
def test_the_permissive_part_of_the_challenge_site(tmp_path, inner):
    """Its metadata.csv lies among the images, as the archive unpacks."""
    folder = tmp_path / "isic2024"
    images = folder / "ISIC_2024_Permissive_Training_Input" / inner
    write(folder / "ISIC_2024_Permissive_Training_GroundTruth.csv", "isic_id,malignant", *(r[:14] for r in ROWS))
    write(images / "metadata.csv", HEADER.replace("target,", ""), *(row[:13] + row[15:] for row in ROWS))
    for row in ROWS:
        touch(images / f"{row[:12]}.jpg")
    records, download = read(folder)
    assert [(r.malignant, r.patient_id, r.lesion_id) for r in records.values()] == [(0, "IP_1", ""), (1, "IP_2", "")]
    assert (download.files_without_row, len(download.tables)) == (0, 2)
    (images / "metadata.csv").unlink()
    with pytest.raises(InputError, match=r"metadata\.csv: no such file, and without it photographs of one patient"):
        read(folder)
