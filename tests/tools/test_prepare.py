"""prepare, end to end on drawn downloads: the set it leaves, and what a kill or bad input leaves."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest

from dermsynth.cli import main
from dermsynth.data import images, manifest
from dermsynth.errors import InputError
from dermsynth.tools.prepare import prepare

HEADER = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"


def download(folder, patients=8, each=3, side=32):
    """A small ISIC 2020: the first image of every second patient is a melanoma."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    rows = []
    for number in range(patients * each):
        patient, melanoma = number // each, number % each == 0 and number // each % 2 == 0
        name = f"ISIC_{number:07d}"
        picture = cv2.resize(rng.integers(0, 255, (3, 4, 3), np.uint8), (side * 3 // 2, side))
        cv2.imwrite(str(folder / "train" / f"{name}.jpg"), picture)
        word = "melanoma,malignant,1" if melanoma else "nevus,benign,0"
        rows.append(f"{name},IP_{patient},female,40,torso,{word}")
    (folder / "train.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return folder


@pytest.fixture
def source(tmp_path):
    return download(tmp_path / "isic2020")


def go(source, out, **arguments):
    prepare([source], out, **{"size": 16, "processes": 1, "fractions": (0.5, 0.25, 0.25), **arguments})


def contents(out):
    """Every file of a set with its bytes; dataset.json says nothing that depends on the run."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def test_the_set(source, tmp_path, capsys):
    out = tmp_path / "set"
    go(source, out)

    image_set = manifest.read(out)
    assert len(image_set.records) == 24
    for record in image_set.records:
        picture = images.read_rgb(image_set.path(record))
        assert picture.shape == (16, 24, 3) == (record.height, record.width, 3)
        assert manifest.sha256_file(image_set.path(record)) == record.sha256
        assert (record.group, record.origin, record.source) == (record.patient_id, "real", "isic2020")
    splits_of = defaultdict(set)
    for record in image_set.records:
        splits_of[record.patient_id].add(record.split)
    assert all(len(found) == 1 for found in splits_of.values())
    assert {(r.split, r.diagnosis) for r in image_set.records} == {
        (split, code) for split in ("train", "val", "test") for code in ("MEL", "NV")
    }
    printed = capsys.readouterr().out
    assert "layout isic2020 (found train.csv), 24 images" in printed
    assert "grouped split; 8 patient ids" in printed
    assert [line.split()[-2:] for line in printed.splitlines() if line.startswith("all")] == [["24", "8"]]
    assert "next: python -m dermsynth" in printed
    assert "IP_" not in printed


def test_dataset_json_says_how_it_was_made(source, tmp_path):
    out = tmp_path / "set"
    go(source, out, seed=5)
    info = json.loads((out / "dataset.json").read_text())
    assert info["settings"]["split"] == "grouped"
    assert info["settings"]["seed"] == 5
    assert info["settings"]["size"] == 16
    assert info["sources"][0]["layout"] == "isic2020"
    assert info["sources"][0]["tables"] == {"train.csv": manifest.sha256_file(source / "train.csv")}
    assert info["train_split_sha256"] == manifest.train_split_sha256(manifest.read(out).records)
    assert sum(sum(split.values()) for split in info["counts"].values()) == 24
    assert "--fractions '[0.5,0.25,0.25]'" in info["command"]
    assert info["versions"]["dermsynth"]


def test_the_first_column_opens_as_an_imagefolder(source, tmp_path):
    go(source, tmp_path / "set")
    with (tmp_path / "set" / "metadata.csv").open() as file:
        assert next(csv.reader(file))[0] == "file_name"


def test_a_process_pool_gives_the_same_set(source, tmp_path):
    go(source, tmp_path / "one")
    go(source, tmp_path / "two", processes=2)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    one.pop("dataset.json"), two.pop("dataset.json")  # holds the name of --out
    assert one == two


def test_another_size_is_the_same_split(source, tmp_path):
    go(source, tmp_path / "small")
    go(source, tmp_path / "large", size=24)
    small, large = manifest.read(tmp_path / "small"), manifest.read(tmp_path / "large")
    assert small.info["train_split_sha256"] == large.info["train_split_sha256"]


def test_two_sources_become_one_set(source, tmp_path):
    other = download(tmp_path / "more")
    table = other / "train.csv"
    table.write_text(table.read_text().replace("ISIC_0", "ISIC_9").replace("IP_", "IQ_"))
    for path in (other / "train").iterdir():
        path.rename(path.with_name(path.name.replace("ISIC_0", "ISIC_9")))
    prepare([source, other], tmp_path / "set", size=16, processes=1)
    assert len(manifest.read(tmp_path / "set").records) == 48


def test_a_second_run_decodes_nothing_and_changes_nothing(source, tmp_path, monkeypatch):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    monkeypatch.setattr(images, "load", lambda *_: pytest.fail("decoded again"))
    go(source, out)
    assert contents(out) == before


def test_kill_in_the_middle_then_the_same_command_gives_the_same_set(tmp_path):
    source = download(tmp_path / "isic2020", patients=40, each=10, side=300)
    go(source, tmp_path / "whole", processes=2)
    out = tmp_path / "set"
    program = (
        "import sys; from pathlib import Path; from dermsynth.tools.prepare import prepare\n"
        "if __name__ == '__main__': prepare([Path(sys.argv[1])], Path(sys.argv[2]), size=16, processes=2,"
        " fractions=(0.5, 0.25, 0.25))"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 120
        while len(list((out / "images").glob("*.png"))) < 40 and time.monotonic() < until:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)  # the parent only: its workers must end by themselves
        process.wait()
    done = len(list((out / "images").glob("*.png")))
    assert 40 <= done < 400
    assert not (out / "metadata.csv").exists()
    with pytest.raises(InputError, match=r"not a complete image set"):
        manifest.read(out)
    _wait_until_nobody_is_left(process.pid)
    (out / "images" / ".ISIC_0000399.png.1.part").write_bytes(b"half")

    go(source, out, processes=2)

    whole, resumed = contents(tmp_path / "whole"), contents(out)
    whole.pop("dataset.json"), resumed.pop("dataset.json")
    assert resumed == whole


def _wait_until_nobody_is_left(session):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(session, signal.SIGKILL)
    pytest.fail("worker processes outlived their parent")


def test_an_image_cut_short_by_a_power_failure_is_written_again(source, tmp_path):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    (out / "metadata.csv").unlink()
    victim = out / "images" / "ISIC_0000003.png"
    victim.write_bytes(b"")
    go(source, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 24}, "size 16, now 24"),
        ({"seed": 9}, "seed 0, now 9"),
        ({"split": "official"}, "--split official"),
    ],
)
def test_another_preparation_in_the_same_folder_is_refused(source, tmp_path, change, message):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    with pytest.raises(InputError, match=message):
        go(source, out, **change)
    assert contents(out) == before


def test_another_source_in_the_same_folder_is_refused(source, tmp_path):
    out = tmp_path / "set"
    go(source, out)
    with pytest.raises(InputError, match="prepared otherwise: sources"):
        go(download(tmp_path / "copy"), out)


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(source, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("cat")
    with pytest.raises(InputError, match="not empty and dermsynth did not make it"):
        go(source, tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.txt"]
    (tmp_path / "photos" / "dataset.json").write_text("[1]")  # somebody else's
    with pytest.raises(InputError, match="prepared otherwise"):
        go(source, tmp_path / "photos")
    with pytest.raises(InputError, match="a file"):
        go(source, tmp_path / "photos" / "cat.txt")


def test_no_set_within_its_own_source(source, tmp_path):
    before = contents(source)
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "set", source / "train" / "set", tmp_path / "link" / "set"):
        with pytest.raises(InputError, match=r"--out .*: it lies in the source .*isic2020\."):
            go(source, out)
    assert contents(source) == before


def test_the_recorded_command_is_the_command(source, tmp_path, monkeypatch):
    out = tmp_path / "elsewhere" / "set"
    (source / "train" / "ISIC_0000004.jpg").write_bytes(b"")
    go(source, out, folds=4, seed=3, max_broken=0.05, border_crop=True, near_duplicates=False)
    before = manifest.read(out)
    assert str(tmp_path) not in before.info["command"]
    words = shlex.split(before.info["command"])
    assert words[:3] == ["python", "-m", "dermsynth"]
    monkeypatch.chdir(tmp_path)
    assert main([*words[3:], "--processes", "1"]) == 0
    again = manifest.read(tmp_path / "set")
    assert again.records == before.records
    assert again.info == before.info


def test_bad_images_are_named_and_nothing_looks_complete(source, tmp_path):
    out = tmp_path / "set"
    for number in range(7):
        path = source / "train" / f"ISIC_{number:07d}.jpg"
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError) as error:
        go(source, out, processes=2)
    message = str(error.value)
    assert "7 of 24 images cannot be used" in message
    assert "ISIC_0000000.jpg: truncated" in message
    assert "and 2 more" in message
    assert "ISIC_0000006" not in message
    assert not (out / "metadata.csv").exists()
    assert len((out / "quarantine.csv").read_text().splitlines()) == 8


def test_a_few_broken_images_are_left_out_and_listed(source, tmp_path, capsys):
    out = tmp_path / "set"
    go(source, tmp_path / "whole")
    whole = manifest.read(tmp_path / "whole")
    path = source / "train" / "ISIC_0000004.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    go(source, out, max_broken=0.05)

    left = manifest.read(out)
    assert left.records == tuple(r for r in whole.records if r.image_id != "ISIC_0000004")
    assert not (out / "images" / "ISIC_0000004.png").exists()
    with (out / "quarantine.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row.pop("reason").startswith("truncated")
    assert row == {"image_id": "ISIC_0000004", "source": "isic2020", "file_name": "ISIC_0000004.jpg"}
    assert left.info["quarantined"] == 1
    assert str(tmp_path) not in (out / "quarantine.csv").read_text()
    assert "1 broken images left out, listed in" in capsys.readouterr().out


def test_mended_images_complete_the_set(source, tmp_path):
    out = tmp_path / "set"
    go(source, tmp_path / "whole")
    path = source / "train" / "ISIC_0000004.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"1 of 24 .*\n.*ISIC_0000004\.jpg: truncated"):
        go(source, out)
    go(source, out, max_broken=0.1)
    assert len(manifest.read(out).records) == 23
    path.write_bytes(whole)
    go(source, out)
    assert manifest.read(out).records == manifest.read(tmp_path / "whole").records
    assert not (out / "quarantine.csv").exists()


def test_a_set_of_nothing_but_broken_images_is_refused(source, tmp_path):
    for path in (source / "train").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="24 of 24 images cannot be used"):
        go(source, tmp_path / "set", max_broken=1.0)


def test_cleaning_is_done_and_recorded(source, tmp_path):
    picture = np.full((90, 120, 3), 180, np.uint8)
    picture[:, :15] = picture[:, -15:] = 0
    cv2.imwrite(str(source / "train" / "ISIC_0000000.jpg"), picture)
    go(source, tmp_path / "plain")
    go(source, tmp_path / "cropped", border_crop=True)
    plain, cropped = (images.read_rgb(tmp_path / n / "images/ISIC_0000000.png") for n in ("plain", "cropped"))
    assert plain.min() < 5
    assert cropped.min() > 170
    info = manifest.read(tmp_path / "cropped").info
    assert (info["settings"]["border_crop"], info["settings"]["hair_removal"]) == (True, False)
    with pytest.raises(InputError, match="border_crop True, now False"):
        go(source, tmp_path / "cropped")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda source: (source / "train" / "ISIC_0000001.jpg").unlink(),
        lambda source: (source / "train.csv").write_text("image,label\na,0\n"),
        lambda source: (source / "train.csv").unlink(),
    ],
)
def test_a_failing_second_run_leaves_a_complete_set_as_it_was(source, tmp_path, spoil):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    spoil(source)
    with pytest.raises(InputError):
        go(source, out)
    assert contents(out) == before


def test_wrong_input_makes_no_folder(source, tmp_path):
    out = tmp_path / "set"
    for arguments, message in [
        ({"size": 0}, "--size 0"),
        ({"processes": 0}, "--processes 0"),
        ({"max_broken": 5}, "--max_broken 5: expected a share"),
        ({"fractions": (0.5, 0.1, 0.1)}, "--fractions"),
        ({"split": "official"}, "does not have all three official parts"),
        ({"split": "official", "folds": 5}, "--folds: an official split has none"),
        ({"folds": 9}, "--folds 9: expected 3 .* to 8"),
    ]:
        with pytest.raises(InputError, match=message):
            go(source, out, **arguments)
    with pytest.raises(InputError, match="SOURCE"):
        prepare([], out)
    assert not out.exists()


def test_no_file_outside_the_source_is_read(source, tmp_path):
    cv2.imwrite(str(tmp_path / "secret.jpg"), np.zeros((32, 32, 3), np.uint8))
    table = source / "train.csv"
    table.write_text(table.read_text().replace("ISIC_0000001", "../../secret"))
    with pytest.raises(InputError, match="expected an image name"):
        go(source, tmp_path / "set")


def test_torch_is_not_imported():
    code = "import sys, dermsynth.tools.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    assert "1 pair of near-duplicates, which join 2 groups to 1: ISIC_0000001 = ISIC_0000010" in printed
    assert "IP_" not in printed

    go(source, tmp_path / "without", near_duplicates=False)
    image_set = manifest.read(tmp_path / "without")
    assert len({r.group for r in image_set.records}) == 8
    assert image_set.info["near_duplicates"] is None


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
    assert "WARNING: 2 of these pairs lie across the official splits" in printed
    assert ("--straddling move takes" in printed) == (straddling == "report")
    sizes = Counter(r.split for r in image_set.records)
    moved = {"images": 2, "groups": 2} if straddling == "move" else None
    assert image_set.info["moved"] == moved
    assert ("2 images taken out (split unused), of 2 patients, lesions or groups" in printed) == bool(moved)
    if straddling == "report":
        assert sizes == {"train": 4, "val": 4, "test": 4}
        assert len({r.group for r in image_set.records}) == 12
    else:
        assert sizes == {"train": 3, "val": 3, "test": 4, "unused": 2}
        assert {r.image_id for r in image_set.split("unused")} == {"ISIC_0000001", "ISIC_0000006"}
        # By such a name compare knows that no patient is, though the image is none of those that are tested on.
        group_of = {r.image_id: r.group for r in image_set.split("test")}
        assert group_of["ISIC_0000008"] == f"{manifest.IMAGE_GROUP}ISIC_0000001"


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
        assert still == ([] if straddling == "move" else found["across_official_splits"])
        assert len(image_set.split("test")) == 600

    def test_isic2017_with_its_official_split(self, real_data, tmp_path):
        prepare([real_data / "isic2017"], tmp_path / "set", size=32)
        image_set = manifest.read(tmp_path / "set")
        assert image_set.info["settings"]["split"] == "official"
        assert Counter(r.split for r in image_set.records) == {"train": 2000, "val": 150, "test": 600}
        assert Counter(r.diagnosis for r in image_set.split("test")) == {"MEL": 117, "SK": 90, "NV": 393}

    def test_isic2020_by_patient(self, real_data, tmp_path):
        prepare([real_data / "isic2020"], tmp_path / "set", size=32)
        image_set = manifest.read(tmp_path / "set")
        assert len(image_set.records) == 643
        assert len({r.group for r in image_set.records}) == 31
        for name in ("train", "val", "test"):
            assert {r.malignant for r in image_set.split(name)} == {0, 1}
            assert len({r.group for r in image_set.split(name)}) >= 5
