"""prepare, end to end: near-duplicates, folds, official splits, and the real sets."""

from collections import Counter

import cv2
import numpy as np
import pytest

from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.sets import manifest
from dermsynth.tools.prepare import prepare
from tests.tools.drawn import go

TEST_WORDS = {"Training": ("benign", "malignant"), "Test": ("0.0", "1.0")}


def copied(source, original, copy):
    """Make one image of a download a mirrored second export of another one."""
    picture = cv2.imread(str(source / "train" / f"{original}.jpg"))
    cv2.imwrite(str(source / "train" / f"{copy}.jpg"), picture[:, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])


def test_near_duplicates_join_patients(source, tmp_path, capsys):
    # two patients' images; which two splits they would fall into does not matter
    copied(source, "ISIC_0000001", "ISIC_0000010")
    go(source, tmp_path / "set")
    image_set = manifest.read(tmp_path / "set")
    group_of = {r.image_id: r.group for r in image_set.records}
    assert group_of["ISIC_0000001"] == group_of["ISIC_0000010"]
    assert len(set(group_of.values())) == 7
    assert image_set.info["near_duplicates"]["pairs"] == [["ISIC_0000001", "ISIC_0000010"]]
    printed = capsys.readouterr().out
    assert (
        "1 pair of near-duplicates, whose groups are joined: 2 become 1, each kept in one split: ISIC_0000001 ="
        in printed
    )
    assert "IP_" not in printed

    go(source, tmp_path / "without", near_duplicates=False)
    image_set = manifest.read(tmp_path / "without")
    assert len({r.group for r in image_set.records}) == 8
    assert image_set.info["near_duplicates"] is None


def test_few_malignant_images_to_measure_by_are_said(source, tmp_path, capsys, monkeypatch):
    go(source, tmp_path / "set")
    malignant = Counter(r.split for r in manifest.read(tmp_path / "set").records if r.malignant)
    said = f"WARNING: few malignant images to measure by (val {malignant['val']}, test {malignant['test']}):"
    assert capsys.readouterr().out.count(said) == 1
    monkeypatch.setattr("dermsynth.data.prepare.account._FEW_MALIGNANT", max(1, malignant["val"]))
    go(source, tmp_path / "again")
    assert "val" not in capsys.readouterr().out.partition("few malignant")[2].partition(")")[0] or not malignant["val"]


def test_folds(source, tmp_path):
    go(source, tmp_path / "set", folds=4)
    image_set = manifest.read(tmp_path / "set")
    folds = {r.group: int(r.extra["fold"]) for r in image_set.records}
    assert sorted(Counter(folds.values()).values()) == [2, 2, 2, 2]
    assert all(int(r.extra["fold"]) == folds[r.group] for r in image_set.records)
    assert {(r.extra["fold"], r.split) for r in image_set.records} == {
        ("0", "test"), ("1", "val"), ("2", "train"), ("3", "train")
    }  # fmt: skip
    assert "--folds 4" in image_set.info["command"]


def test_the_unlabelled_test_part_of_2020_is_for_no_training(source, tmp_path, capsys):
    go(source, tmp_path / "without")
    rng = np.random.default_rng(9)
    (source / "test").mkdir()
    rows = ["image_name,patient_id,sex,age_approx,anatom_site_general_challenge"]
    for number in range(30, 33):
        cv2.imwrite(str(source / "test" / f"ISIC_{number:07d}.jpg"), rng.integers(0, 255, (32, 32, 3), np.uint8))
        rows.append(f"ISIC_{number:07d},IP_T,female,40,torso")
    (source / "test.csv").write_text("\n".join(rows) + "\n")
    go(source, tmp_path / "set")
    image_set, without = manifest.read(tmp_path / "set"), manifest.read(tmp_path / "without")
    assert image_set.info["train_split_sha256"] == without.info["train_split_sha256"]
    assert len(image_set.split("test")) == len(without.split("test")) + 3
    assert "3 images of test.csv have no label; a split by shares leaves them in test" in capsys.readouterr().out
    data = ClassificationData(real=tmp_path / "set", classes=["benign", "malignant"], size=16, batch_size=4)
    data.setup("test")
    tested = [name for batch in data.test_dataloader() for name in batch["image_id"]]
    assert sorted(tested) == sorted(r.image_id for r in without.split("test"))


def official_download(folder):
    """ISIC 2017 with four images a part, of which one in each of train and val is also a test image."""
    rng = np.random.default_rng(3)
    number = 0
    for part in ("Training", "Validation", "Test_v2"):
        rows = []
        (folder / f"ISIC-2017_{part}_Data").mkdir(parents=True)
        for _ in range(4):
            picture = cv2.resize(rng.integers(0, 255, (5, 5, 3), np.uint8), (64, 64))
            cv2.imwrite(str(folder / f"ISIC-2017_{part}_Data" / f"ISIC_{number:07d}.jpg"), picture)
            rows.append(f"ISIC_{number:07d},{number % 2}.0,0.0")
            number += 1
        header = "image_id,melanoma,seborrheic_keratosis"
        (folder / f"ISIC-2017_{part}_Part3_GroundTruth.csv").write_text("\n".join([header, *rows]) + "\n")
        (folder / f"ISIC-2017_{part}_Data" / f"ISIC-2017_{part}_Data_metadata.csv").write_text(
            "image_id,age_approximate,sex\n"
        )
    for part, copy, original in (("Training", 1, 8), ("Validation", 6, 9)):
        picture = cv2.imread(str(folder / f"ISIC-2017_Test_v2_Data/ISIC_{original:07d}.jpg"))
        cv2.imwrite(str(folder / f"ISIC-2017_{part}_Data/ISIC_{copy:07d}.jpg"), picture)
    return folder


@pytest.mark.parametrize("straddling", ["report", "move"])
def test_near_duplicates_across_an_official_split(tmp_path, capsys, straddling):
    source, out = official_download(tmp_path / "isic2017"), tmp_path / "set"
    prepare([source], out, size=32, processes=1, straddling=straddling)
    image_set = manifest.read(out)
    across = [["ISIC_0000001", "ISIC_0000008"], ["ISIC_0000006", "ISIC_0000009"]]
    assert image_set.info["near_duplicates"]["across_official_splits"] == across
    printed = capsys.readouterr().out
    assert "2 of these pairs lie across the official splits" in printed
    assert ("WARNING: 2 of these pairs" in printed) == (straddling == "report")
    assert ("--straddling move takes" in printed) == (straddling == "report")
    sizes = Counter(r.split for r in image_set.records)
    moved = {"images": 2, "groups": 2} if straddling == "move" else {"images": 0, "groups": 0}
    assert image_set.info["moved"] == moved
    assert ("2 images taken out (split unused), of 2 patients, lesions or groups" in printed) == (straddling == "move")
    if straddling == "report":
        assert sizes == {"train": 4, "val": 4, "test": 4}
        assert len({r.group for r in image_set.records}) == 12
    else:
        assert sizes == {"train": 3, "val": 3, "test": 4, "unused": 2}
        assert {r.image_id for r in image_set.split("unused")} == {"ISIC_0000001", "ISIC_0000006"}
        # By such a name compare knows that no patient is, though the image is none of those that are tested on.
        group_of = {r.image_id: r.group for r in image_set.split("test")}
        assert group_of["ISIC_0000008"] == f"{manifest.IMAGE_GROUP}ISIC_0000001"


def test_a_test_part_without_val_stays_and_val_is_dealt_from_train(tmp_path, capsys):
    source = tmp_path / "isic2016"
    rng = np.random.default_rng(5)
    for part, numbers in (("Training", range(24)), ("Test", range(24, 34))):
        (source / f"ISBI2016_ISIC_Part3_{part}_Data").mkdir(parents=True)
        rows = [f"ISIC_{n:07d},{TEST_WORDS[part][n % 2]}" for n in numbers]
        (source / f"ISBI2016_ISIC_Part3_{part}_GroundTruth.csv").write_text("\n".join(rows) + "\n")
        for n in numbers:
            picture = rng.integers(0, 255, (24, 24, 3), np.uint8)
            cv2.imwrite(str(source / f"ISBI2016_ISIC_Part3_{part}_Data" / f"ISIC_{n:07d}.jpg"), picture)
    go(source, tmp_path / "set")
    image_set = manifest.read(tmp_path / "set")
    assert {r.image_id for r in image_set.split("test")} == {f"ISIC_{n:07d}" for n in range(24, 34)}
    assert len(image_set.split("val")) == 8  # a third of train, by 0.5 and 0.25
    assert "no val part: 8 images of train were dealt to it, the test part is as it was" in capsys.readouterr().out
    go(source, tmp_path / "again", split="grouped")
    assert "its official split is not kept, so images of its test part may be trained on" in capsys.readouterr().out


def test_one_group_of_a_large_share_is_said(source, tmp_path, capsys):
    go(source, tmp_path / "before")
    assert "Does its id stand for unknown" not in capsys.readouterr().out
    lines = (source / "train.csv").read_text().splitlines()
    rows = [line.split(",", 2) for line in lines[1:]]
    patients = [n + 1 if n < 6 else 0 for n in range(len(rows))]
    lines[1:] = [f"{image},IP_{who},{rest}" for (image, _, rest), who in zip(rows, patients, strict=True)]
    (source / "train.csv").write_text("\n".join(lines) + "\n")
    go(source, tmp_path / "set")
    printed = " ".join(capsys.readouterr().out.split())
    assert "WARNING: one patient, lesion or group holds 18 of 24 images. Does its id stand for unknown?" in printed
    assert "IP_" not in printed


@pytest.mark.real_data
class TestRealData:
    @pytest.mark.parametrize("straddling", ["report", "move"])
    def test_near_duplicates_of_isic2017(self, real_data, tmp_path, straddling):
        prepare([real_data / "isic2017"], tmp_path / "set", size=64, straddling=straddling)
        image_set = manifest.read(tmp_path / "set")
        found = image_set.info["near_duplicates"]
        assert len(found["pairs"]) >= 14
        assert len(found["across_official_splits"]) >= 8
        split_of = {r.image_id: r.split for r in image_set.records}
        still = [pair for pair in found["across_official_splits"] if "unused" not in {split_of[i] for i in pair}]
        # Files that are byte for byte the same are in one split under either: four images are left out for that.
        identical = len(found["across_official_splits"]) - len(still) if straddling == "report" else 0
        assert identical in (0, 4)
        assert still == [] or straddling == "report"
        assert len(image_set.split("test")) == 600

    def test_isic2017_with_its_official_split(self, real_data, tmp_path):
        prepare([real_data / "isic2017"], tmp_path / "set", size=32)
        image_set = manifest.read(tmp_path / "set")
        assert image_set.info["settings"]["split"] == "official"
        assert Counter(r.split for r in image_set.records) == {
            "train": 1997,
            "val": 149,
            "test": 600,
            "unused": 4,  # byte for byte the same as one in a split that counts more
        }
        assert Counter(r.diagnosis for r in image_set.split("test")) == {"MEL": 117, "SK": 90, "NV": 393}

    def test_isic2020_by_patient(self, real_data, tmp_path):
        prepare([real_data / "isic2020"], tmp_path / "set", size=32)
        image_set = manifest.read(tmp_path / "set")
        assert len(image_set.records) == 643
        assert len({r.group for r in image_set.records}) == 31
