import csv
import hashlib
import json
import os
from dataclasses import replace

import pytest
import yaml

from dermsynth.data.sets import manifest
from dermsynth.data.sets.manifest import Record
from dermsynth.errors import InputError
from tests.builders import make_set


def record(**fields):
    known = {
        "file_name": "images/a.png",
        "image_id": "a",
        "sha256": hashlib.sha256(fields.get("image_id", "a").encode()).hexdigest(),
        "width": 4,
        "height": 3,
        "group": "g",
        "split": "train",
        "source": "isic2017",
    }
    return Record(**{**known, **fields})


def rewrite(root, **changes):
    """Change cells of the first row; None as value takes the column away."""
    table = root / "metadata.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if changes.get(name, "") is not None]
    rows[0] |= {name: value for name, value in changes.items() if value is not None}
    columns += [name for name in changes if name not in rows[0]]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def test_what_is_written_is_read_with_unknown_columns_kept(tmp_path):
    full = record(
        diagnosis="MEL",
        malignant=1,
        patient_id="P1",
        lesion_id="L1",
        sex="female",
        age_approx=55.0,
        attribution='Müller, "Klinik"',
        extra={"seed": "7", "odd column": "x"},
    )
    plain = record(image_id="b", file_name="images/b.png", split="unused", malignant=None)
    manifest.write(tmp_path, [full, plain], {"command": "prepare"})
    back = manifest.read(tmp_path)
    assert back.records[0] == full
    assert back.records[1] == replace(plain, extra={"seed": "", "odd column": ""})
    assert back.info["command"] == "prepare"
    assert back.info["train_split_sha256"] == manifest.train_split_sha256([full])
    assert back.split("train") == (full,)
    assert back.path(full) == tmp_path / "images/a.png"
    assert (tmp_path / "metadata.csv").read_text().startswith("file_name,image_id,")


def test_class_names_by_diagnosis_and_by_malignancy():
    melanoma = record(diagnosis="MEL", malignant=1)
    assert (melanoma.class_name("diagnosis"), melanoma.class_name("malignant")) == ("MEL", "malignant")
    assert record(malignant=0).class_name("malignant") == "benign"
    assert record().class_name("malignant") == record().class_name("diagnosis") == ""


def test_a_missing_folder_or_table_is_said(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        manifest.read(tmp_path / "none")
    with pytest.raises(InputError, match=r"no metadata\.csv"):
        manifest.read(tmp_path)
    (tmp_path / "metadata.csv").write_text(",".join(manifest.COLUMNS) + "\n")
    with pytest.raises(InputError, match="no rows"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": None}, "column group is missing"),
        ({"group": ""}, "line 2: group is blank"),
        ({"file_name": "../x.png"}, "leaves the set's folder"),
        ({"file_name": "/etc/x.png"}, "leaves the set's folder"),
        ({"file_name": "a\\b.png"}, "leaves the set's folder"),
        ({"split": "dev"}, "split 'dev'; expected one of train, val, test, unused"),
        ({"origin": "fake"}, "origin 'fake'"),
        ({"diagnosis": "melanoma"}, "diagnosis 'melanoma'; expected blank or one of MEL, NV"),
        ({"malignant": "yes"}, "malignant 'yes'; expected 0, 1 or blank"),
        ({"width": "wide"}, "width, height and age_approx must be numbers"),
        ({"age_approx": "old"}, "width, height and age_approx must be numbers"),
        ({"image_id": "r_NV_001"}, "image_id 'r_NV_001' occurs twice"),
        ({"file_name": "images/r_NV_001.png"}, r"file_name 'images/r_NV_001\.png' occurs twice"),
        ({"file_name": "./images//r_NV_001.png"}, r"file_name 'images/r_NV_001\.png' occurs twice"),
        ({"group": "g_r_NV_007"}, r"images r_NV_000 \(train\) and r_NV_007 \(test\) belong to one"),
        ({"sha256": "zz"}, "line 2: sha256 'zz'; expected the 64 hexadecimal digits"),
        ({"malignant": "1"}, "line 2: diagnosis NV and malignant 1 contradict each other"),
        ({"age_approx": "nan"}, "line 2: age_approx nan; expected 0 to 150"),
        ({"age_approx": "-5"}, "age_approx -5; expected"),
        ({"age_approx": "1e308"}, "age_approx 1e308; expected"),
    ],
)
def test_a_bad_table_names_the_row_and_the_column(tmp_path, changes, message):
    root = make_set(tmp_path / "set")
    rewrite(root, **changes)
    with pytest.raises(InputError, match=message):
        manifest.read(root)


@pytest.mark.parametrize("column", ["patient_id", "lesion_id", "sha256"])
def test_a_patient_lesion_or_file_in_two_splits_is_refused_whatever_the_group_says(tmp_path, column):
    value = "0" * 64 if column == "sha256" else "X"
    one, other = record(**{column: value}), record(image_id="b", file_name="b", group="h", **{column: value})
    manifest.write(tmp_path, [one, other], {})
    manifest.write(tmp_path, [one, replace(other, split="unused")], {})
    with pytest.raises(InputError, match=r"images a \(train\) and b \(test\) are .*, but lie in different splits"):
        manifest.write(tmp_path, [one, replace(other, split="test")], {})
    table = tmp_path / "metadata.csv"
    table.write_text(table.read_text().replace("unused", "val"))
    with pytest.raises(InputError, match=r"images a \(train\) and b \(val\) are "):
        manifest.read(tmp_path)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    root = make_set(tmp_path / "set")
    table = root / "metadata.csv"
    table.write_text(
        "".join(f"{line},NV\n" for line in table.read_text().splitlines()).replace(",NV\n", ",diagnosis\n", 1)
    )
    with pytest.raises(InputError, match="column diagnosis occurs twice"):
        manifest.read(root)


def test_an_account_that_is_a_pipe_is_not_waited_for(tmp_path):
    root = make_set(tmp_path / "set")
    (root / "dataset.json").unlink()
    os.mkfifo(root / "dataset.json")
    with pytest.raises(InputError, match=r"dataset\.json: not a file"):
        manifest.read(root)


@pytest.mark.parametrize(
    "content", [b'{"command": ', b'{"command": "\xff"}', b"[]", b"[" * 100_000, b'{"settings": 5}']
)
def test_a_broken_account_is_refused(tmp_path, content):
    root = make_set(tmp_path / "set")
    (root / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"set/dataset\.json: "):
        manifest.read(root)


def test_a_table_in_another_encoding_is_refused(tmp_path):
    root = make_set(tmp_path / "set")
    rewrite(root, attribution="Müller")
    table = root / "metadata.csv"
    assert manifest.read(root).records[0].attribution == "Müller"
    table.write_bytes(table.read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(InputError, match=r"set/metadata\.csv: not a CSV file in UTF-8"):
        manifest.read(root)


def test_rows_longer_than_the_header_are_refused(tmp_path):
    root = make_set(tmp_path / "set")
    table = root / "metadata.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1] + ",stray", *lines[2:]]) + "\n")
    with pytest.raises(InputError, match="more cells than columns"):
        manifest.read(root)


def test_messages_name_images_and_not_patients(tmp_path):
    records = [record(patient_id="IP_1", group="IP_1"), record(image_id="b", file_name="b", group="IP_1", split="val")]
    with pytest.raises(InputError) as caught:
        manifest.write(tmp_path, records, {})
    assert "IP_1" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    manifest.write(tmp_path, [record()], {})
    before = (tmp_path / "metadata.csv").read_text()

    def fail(descriptor):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(InputError, match=r"metadata|dataset\S*: cannot be written \(no space left\)"):
        manifest.write(tmp_path, [record(image_id="new")], {})
    assert (tmp_path / "metadata.csv").read_text() == before


def test_the_card_gives_every_split_its_own_images_and_a_label(tmp_path):
    """As `datasets.load_dataset` reads it: a table a split, and no image in two of them."""
    root = make_set(tmp_path / "set")
    records = [replace(r, split="unused") if r.image_id == "r_NV_000" else r for r in manifest.read(root).records]
    manifest.write(root, records, {})
    _, card, _ = (root / "README.md").read_text().split("---\n")
    (config,) = yaml.safe_load(card)["configs"]
    listed = {}
    for part in config["data_files"]:
        table, images = part["path"]
        assert table in config["metadata_filenames"]
        assert images == "images/*"
        listed[part["split"]] = [json.loads(line) for line in (root / table).read_text().splitlines()]
    expected = {
        name: [r for r in records if r.split == split]
        for name, split in (("train", "train"), ("validation", "val"), ("test", "test"))
    }
    assert listed == {
        name: [{"file_name": r.file_name, "image_id": r.image_id, "label": r.diagnosis} for r in rows]
        for name, rows in expected.items()
    }


def test_datasets_imagefolder_layout_has_file_name_first(tmp_path):
    root = make_set(tmp_path / "set")
    with (root / "metadata.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][0] == "file_name"
    assert all((root / row[0]).is_file() for row in rows[1:])
