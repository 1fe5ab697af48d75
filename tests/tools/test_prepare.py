"""prepare, end to end on a drawn download: the set it leaves, and what bad input leaves."""

import csv
import json
import subprocess
import sys
from collections import defaultdict

import cv2
import numpy as np
import pytest

from dermsynth.data.sets import images, manifest
from dermsynth.errors import InputError
from dermsynth.tools.prepare import prepare
from tests.tools.drawn import contents, download, go


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


def test_bad_images_are_named_and_nothing_looks_complete(source, tmp_path):
    out = tmp_path / "set"
    for number in range(7):
        path = source / "train" / f"ISIC_{number:07d}.jpg"
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError) as error:
        go(source, out, processes=2)
    message = str(error.value)
    assert "7 of 24 images cannot be used, such as " in message
    assert "ISIC_0000000.jpg: truncated" in message
    assert "\n" not in message
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


def test_no_set_within_its_own_source(source, tmp_path):
    before = contents(source)
    (tmp_path / "link").symlink_to(source)
    for out in (source, source / "set", source / "train" / "set", tmp_path / "link" / "set"):
        with pytest.raises(InputError, match=r"--out .*: it lies in the source .*isic2020\."):
            go(source, out)
    assert contents(source) == before


def test_wrong_input_makes_no_folder(source, tmp_path):
    out = tmp_path / "set"
    for arguments, message in [
        ({"size": 0}, "--size 0"),
        ({"size": 10**8}, "--size 100000000: expected 1 to 8192"),
        ({"processes": 0}, "--processes 0"),
        ({"max_broken": 5}, "--max_broken 5: expected a share"),
        ({"fractions": (0.5, 0.1, 0.1)}, "--fractions"),
        ({"split": "official"}, "has no official train and test parts"),
        ({"split": "official", "folds": 5}, "--folds: an official split has none"),
        ({"folds": 9}, "--folds 9: expected 3 .* to 8"),
    ]:
        with pytest.raises(InputError, match=message):
            go(source, out, **arguments)
    with pytest.raises(InputError, match="SOURCE"):
        prepare([], out)
    assert not out.exists()


def test_torch_is_not_imported():
    code = "import sys, dermsynth.tools.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
