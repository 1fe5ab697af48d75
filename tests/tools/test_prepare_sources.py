"""prepare of several sources into one set: images that they share, labels that differ, splits that only some have."""

import csv
import json
import os
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest

from dermsynth.data.prepare.layouts.download import Choices, Columns
from dermsynth.data.prepare.sources import once_each, read_source
from dermsynth.data.sets import manifest
from dermsynth.errors import InputError
from dermsynth.tools.prepare import prepare


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8))


def folders(root, **classes):
    """Class folders: code -> numbers of ISIC images."""
    for code, numbers in classes.items():
        for number in numbers:
            draw(root / code / f"ISIC_{number:07d}.jpg", number)
    return root


def isic2019(root, lesions, code="NV"):
    """Number of an ISIC image -> its lesion; all of one diagnosis."""
    classes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    flags = ",".join("1.0" if name == code else "0.0" for name in classes)
    truth, about = [f"image,{','.join(classes)}"], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number, lesion in lesions.items():
        draw(root / "ISIC_2019_Training_Input" / f"ISIC_{number:07d}.jpg", number)
        truth.append(f"ISIC_{number:07d},{flags}")
        about.append(f"ISIC_{number:07d},,,{lesion},")
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    (root / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(about) + "\n")
    return root


def go(sources, out, **arguments):
    prepare(sources, out, **{"size": 16, "processes": 1, "fractions": (0.5, 0.25, 0.25), **arguments})
    return {record.image_id: record for record in manifest.read(out).records}


def test_one_photograph_with_two_labels_in_one_source_is_a_contradiction(tmp_path, capsys):
    source = folders(tmp_path / "source", benign=range(8), malignant=range(8, 16))
    shutil.copy(source / "benign/ISIC_0000003.jpg", source / "malignant/ISIC_0000103.jpg")
    shutil.copy(source / "benign/ISIC_0000004.jpg", source / "benign/ISIC_0000104.jpg")
    for near_duplicates in (True, False):
        go([source], out := tmp_path / f"set-{near_duplicates}", near_duplicates=near_duplicates)
        said = ["ISIC_0000003 (benign) = ISIC_0000103 (malignant)"]
        assert json.loads((out / "dataset.json").read_text())["contradictions"] == said
        assert f"WARNING: 1 pair of images are one photograph with two labels, and both are kept: {said[0]}" in (
            capsys.readouterr().out
        )


def test_names_that_are_not_utf_8_become_ids_that_are(tmp_path):
    source = folders(tmp_path / "source", NV=range(8), MEL=range(8, 16))
    (source / "NV/ISIC_0000001.jpg").rename(os.fsdecode(os.fsencode(source) + b"/NV/n\xe4vus.jpg"))
    records = go([source], tmp_path / "set")
    assert "n_vus" in records
    assert len(records) == 16


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"labels": {"bening": "MEL"}}, r"--labels\.bening MEL: no folder and no cell says bening; found MEL, NV"),
        ({"columns": Columns(image="file")}, r"--columns\.image file: layout folders has none"),
    ],
)
def test_what_is_said_of_labels_and_columns_that_no_source_has_is_refused(tmp_path, choices, message):
    source = folders(tmp_path / "source", NV=range(8), MEL=range(8, 16))
    with pytest.raises(InputError, match=message):
        go([source], tmp_path / "set", **choices)
    assert not (tmp_path / "set").exists()


def test_an_image_of_two_sources_is_taken_once_as_the_first_has_it(tmp_path, capsys):
    first = folders(tmp_path / "first", NV=range(6), MEL=[10])
    second = isic2019(tmp_path / "second", {4: "", 5: "", 6: "", 7: ""})
    records = go([first, second], tmp_path / "set")
    assert len(records) == 9
    assert Counter(r.source for r in records.values()) == {"first": 7, "isic2019": 2}
    assert records["ISIC_0000005"].source == "first"
    printed = capsys.readouterr().out
    assert "second: 2 images left out that an earlier source holds" in printed
    assert "two labels" not in printed
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["repeated"] == 2


def test_what_the_copy_says_of_its_lesion_still_joins_groups(tmp_path):
    first = folders(tmp_path / "first", NV=range(6))
    second = isic2019(tmp_path / "second", {5: "L1", 6: "L1", 7: "L2", 4: "L2", 8: ""})
    records = go([first, second], tmp_path / "set")
    assert records["ISIC_0000005"].group == records["ISIC_0000006"].group == "L1"
    assert records["ISIC_0000004"].group == records["ISIC_0000007"].group == "L2"
    assert records["ISIC_0000005"].split == records["ISIC_0000006"].split
    assert len({r.group for r in records.values()}) == 7


def test_labels_that_contradict_are_said_and_the_first_is_kept(tmp_path, capsys):
    first = folders(tmp_path / "first", NV=range(5), MEL=[5])
    second = isic2019(tmp_path / "second", {4: "", 5: "", 6: ""})
    records = go([first, second], tmp_path / "set")
    assert records["ISIC_0000005"].diagnosis == "MEL"
    said = "ISIC_0000005 (first: MEL, second: NV)"
    assert f"1 of them have two labels, the first of which is kept: {said}" in capsys.readouterr().out
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["contradictions"] == [said]


@pytest.mark.parametrize(
    ("fine", "coarse", "malignant"), [("SK", "BKL", 0), ("SL", "BKL", 0), ("AK", "AKIEC", None), ("SCC", "AKIEC", 1)]
)
@pytest.mark.parametrize("finer_first", [True, False])
@pytest.mark.parametrize("keratosis", ["indeterminate", "benign"])
def test_the_finer_diagnosis_wins_in_either_order(tmp_path, capsys, fine, coarse, malignant, finer_first, keratosis):
    words = [fine, coarse] if finer_first else [coarse, fine]
    choices = Choices(actinic_keratosis=keratosis)
    readings = [
        read_source(folders(tmp_path / name, **{word: range(6)}), "auto", choices)
        for name, word in zip(("first", "second"), words, strict=True)
    ]
    once = once_each(readings)
    expected = 0 if fine == "AK" and keratosis == "benign" else malignant
    assert {(i.record.diagnosis, i.record.malignant) for i in once.images} == {(fine, expected)}
    assert once.contradictions == []
    assert once.refined[5] == f"ISIC_0000005 (first: {words[0]}, second: {words[1]})"
    assert "6 of them have a label that says more, which is kept: ISIC_0000000 (first" in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), [("malignant", "MEL"), ("MEL", "malignant"), ("MEL", "unknown")])
def test_what_only_one_source_knows_of_a_label_is_kept(tmp_path, first, second):
    sources = [folders(tmp_path / word, **{word: [1]}) for word in (first, second)]
    once = once_each([read_source(source, "auto", Choices()) for source in sources])
    assert [(i.record.diagnosis, i.record.malignant) for i in once.images] == [("MEL", 1)]
    assert len(once.refined) == 1


def test_a_benign_nevus_and_a_malignant_lesion_are_a_contradiction(tmp_path):
    sources = [folders(tmp_path / word, **{word: [1]}) for word in ("NV", "malignant")]
    once = once_each([read_source(source, "auto", Choices()) for source in sources])
    assert [(i.record.diagnosis, i.record.malignant) for i in once.images] == [("NV", 0)]
    assert once.contradictions == ["ISIC_0000001 (NV: NV, malignant: malignant)"]


def test_names_that_the_archive_did_not_give_tell_nothing(tmp_path):
    for name in ("first", "second"):
        for number in range(4):
            draw(tmp_path / name / "NV" / f"{number}.jpg")
    with pytest.raises(InputError, match=r"second: 4 images have the names of images in an earlier source: 0, 1, 2, 3"):
        go([tmp_path / "first", tmp_path / "second"], tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_official_split_that_only_some_have(tmp_path, capsys):
    for number, split in enumerate(("train", "val", "test")):
        folders(tmp_path / "official" / split, NV=[number], MEL=[10 + number])
    other = folders(tmp_path / "other", NV=range(20, 24))
    sources = [tmp_path / "official", other]
    with pytest.raises(InputError, match=r"--split official: .*other \(folders\) has no official train and test parts"):
        go(sources, tmp_path / "set", split="official")
    records = go(sources, tmp_path / "set")
    assert "grouped split: " in capsys.readouterr().out
    assert len({r.split for r in records.values()}) == 3

    alone = go(sources[:1], tmp_path / "alone")
    assert {name: r.split for name, r in alone.items() if r.diagnosis == "NV"} == {
        "ISIC_0000000": "train",
        "ISIC_0000001": "val",
        "ISIC_0000002": "test",
    }


def test_a_lesion_that_is_benign_and_malignant_is_said_once(tmp_path, capsys):
    source = tmp_path / "source"
    lines = ["image,label,lesion"]
    for number, (code, lesion) in enumerate(
        [("NV", 1), ("MEL", 1), ("MEL", 1), ("NV", 2), ("SK", 2), ("MEL", ""), ("NV", "")]
    ):
        draw(source / f"ISIC_{number:07d}.jpg", number)
        lines.append(f"ISIC_{number:07d},{code},{lesion}")
    (source / "table.csv").write_text("\n".join(lines) + "\n")
    go([source], tmp_path / "set", columns=Columns(image="image", label="label", lesion="lesion"))
    said = "ISIC_0000000 (NV) and ISIC_0000001 (MEL)"
    assert [line for line in capsys.readouterr().out.splitlines() if "WARNING: 1 lesion" in line] == [
        f"WARNING: 1 lesion is benign by one image and malignant by another, and both are kept: {said}"
    ]


def test_parts_that_are_sources_of_their_own_are_one_official_split(tmp_path, capsys):
    train = folders(tmp_path / "tr" / "train", NV=range(4), MEL=range(4, 8))
    test = folders(tmp_path / "te" / "test", NV=range(10, 12), MEL=range(12, 14))
    records = go([train.parent, test.parent], tmp_path / "set")
    assert {name for name, r in records.items() if r.split == "test"} == {f"ISIC_{n:07d}" for n in range(10, 14)}
    warned = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert all("few malignant images" in line for line in warned), "of the split itself nothing is to be warned of"


@pytest.mark.parametrize(("part", "lost"), [("test", "test"), ("valid", "val"), ("train", None)])
def test_an_official_part_that_is_dealt_again_is_said(tmp_path, capsys, part, lost):
    folders(tmp_path / "download" / part, NV=range(4), MEL=range(4, 8))
    go([tmp_path / "download"], tmp_path / "set")
    said = f"its official split is not kept, so images of its {lost} part may be trained on"
    assert (said in capsys.readouterr().out) == (lost is not None)


def official(root, offset=0, **numbers):
    """Class folders inside train, val and test: split -> numbers of ISIC images, all naevi."""
    for split, chosen in {"train": [1], "val": [2], "test": [3], **numbers}.items():
        folders(root / split, NV=[offset + number for number in chosen])
    return root


def official_csv(root, **images):
    """A CSV with official splits: split -> number of an ISIC image -> its patient."""
    lines = ["image,label,split,patient"]
    for split, patient_of in images.items():
        for number, patient in patient_of.items():
            draw(root / f"ISIC_{number:07d}.jpg", number)
            lines.append(f"ISIC_{number:07d},NV,{split},{patient}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root


COLUMNS = Columns(image="image", label="label", split="split", patient="patient")


def test_a_patient_across_official_splits_that_only_the_second_source_tells_of(tmp_path, capsys):
    """The first has 5 in train without a patient; the second says that it is the patient of 9, in test."""
    first = official(tmp_path / "first", train=[1, 5])
    second = official_csv(tmp_path / "second", train={5: "P"}, val={8: "Q"}, test={9: "P"})
    with pytest.raises(InputError, match=r"1 patients or lesions .*: ISIC_0000005 \(train\), ISIC_0000009 \(test\)"):
        go([first, second], tmp_path / "set", columns=COLUMNS)
    assert not (tmp_path / "set").exists(), "known before anything is resized"

    records = go([first, second], tmp_path / "set", columns=COLUMNS, straddling="move")
    assert {name for name, r in records.items() if r.split == "unused"} == {"ISIC_0000005"}
    assert "1 images taken out (split unused), of 1 patients" in capsys.readouterr().out
    info = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert info["moved"] == {"images": 1, "groups": 1}


def test_official_splits_that_contradict_are_said_and_the_first_is_kept(tmp_path, capsys):
    first = official(tmp_path / "first", train=[1, 5])
    second = official(tmp_path / "second", train=[11], val=[12], test=[13, 5])
    records = go([first, second], tmp_path / "set")
    assert records["ISIC_0000005"].split == "train"
    said = "ISIC_0000005 (first: NV in train, second: NV in test)"
    assert f"1 of them have two labels or splits, the first of which is kept: {said}" in capsys.readouterr().out
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["contradictions"] == [said]

    go([first, second], tmp_path / "dealt", split="grouped")
    assert "of them have two" not in capsys.readouterr().out


def test_an_image_that_one_source_has_twice_is_refused(tmp_path):
    source = isic2019(tmp_path / "isic2019", {4: "", 5: "", 6: ""})
    draw(source / "ISIC_2019_Training_Input" / "ISIC_0000005_downsampled.jpg")
    for table in source.glob("*.csv"):
        line = next(line for line in table.read_text().splitlines() if line.startswith("ISIC_0000005"))
        with table.open("a") as file:
            file.write(line.replace("ISIC_0000005", "ISIC_0000005_downsampled") + "\n")
    with pytest.raises(InputError, match=r"isic2019: ISIC_0000005 occurs twice, as ISIC_0000005\.jpg .*_downsampled"):
        go([source], tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_the_choices_are_part_of_what_the_set_is(tmp_path):
    source = folders(tmp_path / "first", AK=range(4), NV=range(4, 8))
    records = go([source], tmp_path / "set", actinic_keratosis="malignant")
    assert Counter(r.malignant for r in records.values()) == {0: 4, 1: 4}
    with pytest.raises(InputError, match="actinic_keratosis 'malignant', now 'indeterminate'"):
        go([source], tmp_path / "set")
    info = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert "--actinic_keratosis malignant" in info["command"]
    assert "actinic keratosis (AK 4) counts as malignant" in info["sources"][0]["notes"][0]


def test_a_csv_with_named_columns_end_to_end(tmp_path):
    source = tmp_path / "clinic"
    for number in range(12):
        draw(source / "pictures" / f"{number}.png", number)
    lines = [f"{n},{'naevus' if n % 2 else 'bad'},P{n // 3}" for n in range(12)]
    (source / "cases.csv").write_text("\n".join(["case,finding,person", *lines]) + "\n")
    columns = Columns(image="case", label="finding", patient="person")
    records = go([source], tmp_path / "set", columns=columns, labels={"bad": "MEL"})
    assert Counter(r.diagnosis for r in records.values()) == {"NV": 6, "MEL": 6}
    assert all(r.group == r.patient_id for r in records.values())


@pytest.mark.real_data
class TestRealData:
    def test_the_challenges_share_images_and_do_not_contradict_each_other(self, real_data, tmp_path, capsys):
        official = real_data / "isic_csv"
        ham, year = tmp_path / "ham10000", tmp_path / "isic2019"
        for folder, table, column, place in (
            (ham, "HAM10000_metadata.csv", "image_id", "HAM10000_images_part_1"),
            (year, "ISIC_2019_Training_GroundTruth.csv", "image", "ISIC_2019_Training_Input"),
        ):
            (folder / place).mkdir(parents=True)
            shutil.copy(official / table, folder)
            with (official / table).open() as file:
                for row in csv.DictReader(file):
                    (folder / place / f"{row[column]}.jpg").touch()
        shutil.copy(official / "ISIC_2019_Training_Metadata.csv", year)
        sources = (real_data / "isic2017", ham, year)
        readings = [read_source(source, "auto", Choices()) for source in sources]
        found, repeated, contradictions, refined = once_each(readings)
        assert len(found) == 2750 + 10015 + 25331 - 2745 - 10015
        assert len(repeated) == 2745 + 10015
        assert contradictions == []
        labels = {i.record.image_id: (i.record.diagnosis, i.record.malignant) for i in found}
        # Of the 327 AKIEC of HAM10000, 2019 calls 130 AK and 197 SCC; none is left as it was, and no cancer is lost.
        akiec = [i.record.image_id for i in readings[1].download.images if i.record.diagnosis == "AKIEC"]
        assert Counter(labels[name] for name in akiec) == {("AK", None): 130, ("SCC", 1): 197}
        assert {
            i.record.image_id: (i.record.diagnosis, i.record.malignant) for i in once_each(readings[::-1])[0]
        } == labels
        assert set(akiec) <= {said.split()[0] for said in refined}

    def test_real_images_in_the_layout_of_2019(self, real_data, tmp_path):
        """Thirty images that 2017 and 2019 share, under their 2019 names and rows."""
        here = {p.stem: p for p in (real_data / "isic2017").glob("*/*.jpg")}
        source = tmp_path / "isic2019"
        (source / "ISIC_2019_Training_Input").mkdir(parents=True)
        kept = set()
        for end in ("GroundTruth", "Metadata"):
            table = real_data / "isic_csv" / f"ISIC_2019_Training_{end}.csv"
            header, *lines = table.read_text().splitlines()
            names = [line.split(",")[0] for line in lines]
            kept = kept or {name for name in names if name.removesuffix("_downsampled") in here}
            chosen = sorted(kept)[::90]
            lines = [line for line in lines if line.split(",")[0] in chosen]
            (source / table.name).write_text("\n".join([header, *lines]) + "\n")
        for name in chosen:
            image = here[name.removesuffix("_downsampled")]
            shutil.copy(image, source / "ISIC_2019_Training_Input" / f"{name}.jpg")
        records = go([source, real_data / "isic2017"], tmp_path / "set", size=8)
        assert Counter(r.source for r in records.values()) == {"isic2019": 31, "isic2017": 2750 - 31}
