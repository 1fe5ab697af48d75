"""adopt: a foreign synthetic set enters, and only by name."""

import json
import shlex
import shutil

import cv2
import numpy as np
import pytest

from dermsynth.cli import main
from dermsynth.data.loading.modules import ClassificationData
from dermsynth.data.phantoms.patients import write as write_phantoms
from dermsynth.data.prepare.layouts.download import Columns
from dermsynth.data.sets import images, leaks, manifest
from dermsynth.errors import InputError
from dermsynth.tools.adopt import adopt
from dermsynth.tools.prepare import prepare
from tests.builders import make_set
from tests.data.sets.test_decoding import resized

CREDIT = {"license": "CC-BY-4.0", "attribution": "Farooq et al. 2024, arXiv:2401.05159"}


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (32, 48, 3), np.uint8))


@pytest.fixture
def source(tmp_path):
    """As Derm-T2IM's images are released: a folder a class, JPEGs with the same names in both."""
    for number in range(4):
        draw(tmp_path / "Derm-T2IM" / "Benign" / f"{number}.jpg", number)
        draw(tmp_path / "Derm-T2IM" / "Malignant" / f"{number}.jpg", 10 + number)
    return tmp_path / "Derm-T2IM"


def go(source, out, **arguments):
    adopt(source, out, **{**CREDIT, "size": 16, "processes": 1, **arguments})
    return manifest.read(out)


def test_the_set(source, tmp_path, capsys):
    image_set = go(source, tmp_path / "t2im", name="derm-t2im")
    assert len(image_set.records) == 8
    for record in image_set.records:
        assert (record.origin, record.image_manipulation, record.split) == ("synthetic", "synthetic", "train")
        assert (record.source, record.license, record.attribution) == ("derm-t2im", *CREDIT.values())
        assert record.malignant == record.image_id.startswith("Malignant")
        assert record.group == f"image:{record.image_id}"
        assert record.extra["train_split_sha256"] == "unknown"
        assert images.read_rgb(image_set.path(record)).shape == (16, 24, 3)
    printed = capsys.readouterr().out
    assert "layout folders (found folders Benign, Malignant), 8 images" in printed
    assert "8 synthetic images of derm-t2im" in printed


def test_a_classifier_takes_it_only_by_name(source, tmp_path):
    real = make_set(tmp_path / "real")
    go(source, tmp_path / "t2im")
    how = {"real": real, "classes": ["benign", "malignant"], "size": 16, "batch_size": 4}
    how["synthetic"] = [tmp_path / "t2im"]
    with pytest.raises(InputError, match=r"t2im: its generator was fitted on another train split \(unknown\)"):
        ClassificationData(**how).setup("fit")
    data = ClassificationData(**how, allow_foreign=["t2im"])
    data.setup("fit")
    assert len(data.generated) == 8
    assert not [s for name in ("val", "test") for s in data.samples[name] if s.record.origin == "synthetic"]


def test_dreambooth_takes_it_as_class_images_only_by_name(source, tmp_path):
    """What it generates would else carry our own split's hash."""
    real, adopted = manifest.read(make_set(tmp_path / "real")), go(source, tmp_path / "t2im")
    with pytest.raises(InputError, match=r"t2im: its generator was fitted on another train split \(unknown\)"):
        leaks.check(real, [adopted], [], for_prior=True)
    leaks.check(real, [adopted], ["t2im"], for_prior=True)


def test_with_what_its_generator_was_fitted_on_it_needs_no_name(source, tmp_path, capsys):
    real, other = make_set(tmp_path / "real"), make_set(tmp_path / "other", {"NV": 8})
    made = go(source, tmp_path / "t2im", fitted_on=real)
    split = manifest.train_split_sha256(manifest.read(real).records)
    assert {record.extra["train_split_sha256"] for record in made.records} == {split}
    assert "allow_foreign" not in capsys.readouterr().out
    for for_prior in (False, True):
        leaks.check(manifest.read(real), [made], [], for_prior)
        with pytest.raises(InputError, match=rf"was fitted on another train split \({split[:12]}\)"):
            leaks.check(manifest.read(other), [made], [], for_prior)


def test_another_set_or_none_that_it_was_fitted_on_is_another_command(source, tmp_path):
    real, other = make_set(tmp_path / "real"), make_set(tmp_path / "other", {"NV": 8})
    go(source, tmp_path / "set", fitted_on=real)
    assert "--fitted_on real" in go(source, tmp_path / "set", fitted_on=real).info["command"]
    for fitted_on in (other, None):
        with pytest.raises(InputError, match="it holds a set prepared otherwise: fitted_on"):
            go(source, tmp_path / "set", fitted_on=fitted_on)


def test_copies_of_what_its_generator_was_not_fitted_on_are_found(source, tmp_path):
    write_phantoms(tmp_path / "phantoms", patients=12, seed=0, size=64, malignant_share=0.3)
    prepare([tmp_path / "phantoms"], tmp_path / "real", size=64, processes=1)
    real = manifest.read(tmp_path / "real")
    held_out = real.split("test")[0]
    photograph = cv2.imread(str(real.path(held_out)))
    cv2.imwrite(str(source / "Benign" / "1.jpg"), cv2.flip(photograph, 1))
    with pytest.raises(InputError, match=rf"1 near-copies .* images/Benign_1\.png of {held_out.image_id} \(test\)"):
        go(source, tmp_path / "set", size=64, fitted_on=real.root)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"origin": "synthetic"}, "it holds generated images"), ({"split": "test"}, "none of its images is in train")],
)
def test_a_set_that_no_generator_can_be_fitted_on_is_refused(source, tmp_path, change, message):
    folder = make_set(tmp_path / "other", **{"split": "train", **change})
    with pytest.raises(InputError, match=rf"--fitted_on .*other: {message}"):
        go(source, tmp_path / "set", fitted_on=folder)
    assert not (tmp_path / "set").exists()


def test_it_is_not_taken_for_a_real_set(source, tmp_path):
    go(source, tmp_path / "t2im")
    data = ClassificationData(
        real=tmp_path / "t2im", classes=["benign", "malignant"], size=16, batch_size=4, allow_foreign=["t2im"]
    )
    with pytest.raises(InputError, match="is generated; data\\.real takes real images only"):
        data.setup("fit")


def test_real_and_adopted_images_go_through_the_same_encoder(source, tmp_path):
    image_set = go(source, tmp_path / "t2im")
    record = next(r for r in image_set.records if r.image_id == "Benign_2")
    expected = resized(source / "Benign" / "2.jpg", 16)
    assert (images.read_rgb(image_set.path(record)) == expected).all()
    assert image_set.path(record).suffix == ".png"


def test_a_csv_and_what_it_may_not_say(source, tmp_path):
    rows = [f"{c}/{n}.jpg,{d},P1,test,CC-0" for c, d in (("Benign", "NV"), ("Malignant", "MEL")) for n in range(4)]
    (source / "made.csv").write_text("\n".join(["file,dx,patient,fold,terms", *rows]) + "\n")
    columns = Columns(image="file", label="dx", patient="patient", split="fold", license="terms")
    records = go(source, tmp_path / "set", layout="csv", columns=columns).records
    assert {(r.diagnosis, r.malignant, r.patient_id, r.split, r.license) for r in records} == {
        ("NV", 0, "", "train", "CC0-1.0"),
        ("MEL", 1, "", "train", "CC0-1.0"),
    }


def test_one_image_with_two_labels_is_said(source, tmp_path, capsys):
    shutil.copy(source / "Benign/2.jpg", source / "Malignant/2.jpg")
    said = ["Benign_2 (benign) = Malignant_2 (malignant)"]
    assert go(source, tmp_path / "set").info["contradictions"] == said
    assert f"one photograph with two labels, and both are kept: {said[0]}" in capsys.readouterr().out


def test_folders_called_test_are_trained_on_all_the_same(source, tmp_path):
    (tmp_path / "whole").mkdir()
    for split in ("train", "test"):
        for word in ("Benign", "Malignant"):
            draw(tmp_path / "whole" / split / word / f"{split}{word}.png", 1)
    assert {r.split for r in go(tmp_path / "whole", tmp_path / "set").records} == {"train"}
    assert {r.split for r in go(tmp_path / "whole", tmp_path / "other", split="unused").records} == {"unused"}


def test_a_download_of_real_photographs_is_for_prepare(source, tmp_path):
    for word in ("Benign", "Malignant"):
        (source / word).rename(source / f"{word} things")
    with pytest.raises(InputError, match="no known layout") as error:
        go(source, tmp_path / "set")
    assert "isic2020" not in str(error.value)
    (source / "train.csv").write_text("image_name,patient_id,target\nISIC_1,IP_1,0\n")
    with pytest.raises(
        InputError, match=r"layout isic2020 \(found train\.csv\), which prepare takes as real\. Exp"
    ) as error:
        go(source, tmp_path / "set")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_drawn_lesions_are_adopted_by_their_columns(tmp_path):
    write_phantoms(tmp_path / "phantoms", patients=3, seed=0, size=32, malignant_share=0.3)
    with pytest.raises(InputError, match=r"isic2020 .*csv: any CSV whose columns are named, as --columns\.image FILE"):
        go(tmp_path / "phantoms", tmp_path / "set")
    columns = Columns(image="image_name", label="diagnosis", malignant="target")
    records = go(tmp_path / "phantoms", tmp_path / "set", columns=columns).records
    assert {(r.origin, r.patient_id) for r in records} == {("synthetic", "")}
    assert {r.malignant for r in records} == {0, 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"license": " "}, "--license: blank"), ({"attribution": ""}, "--attribution: blank"), ({"size": 0}, "--size 0")],
)
def test_wrong_flags_make_no_folder(source, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        go(source, tmp_path / "set", **change)
    assert not (tmp_path / "set").exists()


def test_the_same_command_goes_on_and_another_is_refused(source, tmp_path):
    before = go(source, tmp_path / "set")
    assert go(source, tmp_path / "set").records == before.records
    with pytest.raises(InputError, match=r"prepared otherwise: license 'CC-BY-4\.0', now 'CC0-1\.0'"):
        go(source, tmp_path / "set", license="CC0-1.0")


def test_from_the_command_line(source, tmp_path, capsys):
    (source / "Benign").rename(source / "harmless")
    out = tmp_path / "set"
    words = ["adopt", str(source), "--out", str(out), "--size", "16", "--processes", "1"]
    assert main([*words, "--license", "CC-BY-4.0"]) == 2
    assert "--attribution must be given" in capsys.readouterr().err
    words += ["--license", "CC-BY-4.0", "--attribution", "Farooq et al. 2024", "--labels.harmless", "benign"]
    assert main(words) == 0
    assert len(manifest.read(out).records) == 8
    info = json.loads((out / "dataset.json").read_text())
    assert "--labels.harmless benign" in info["command"]
    assert str(tmp_path) not in info["command"]


def test_the_recorded_command_is_the_command(source, tmp_path, monkeypatch):
    for path in (source / "Benign").iterdir():
        path.unlink()
    rows = [f"{n}.jpg,bad" for n in range(4)]
    (source / "made.csv").write_text("\n".join(["file,dx", *rows]) + "\n")
    how = {"columns": Columns(image="file", label="dx"), "labels": {"bad": "MEL"}, "layout": "csv", "max_broken": 0.5}
    before = go(source, tmp_path / "elsewhere" / "t2im", name="derm t2im", **how)
    words = shlex.split(before.info["command"])
    assert words[:3] == ["python", "-m", "dermsynth"]
    monkeypatch.chdir(tmp_path)
    assert main([*words[3:], "--processes", "1"]) == 0
    again = manifest.read(tmp_path / "t2im")
    assert again.records == before.records
    assert again.info == before.info


def test_other_images_of_the_same_names_are_another_source(source, tmp_path):
    out = tmp_path / "set"
    before = go(source, out)
    other = tmp_path / "b" / source.name
    shutil.copytree(source, other)
    assert go(other, out).records == before.records
    draw(other / "Malignant" / "2.jpg", 99)
    with pytest.raises(InputError, match=r"1 of its images were made from files .* of other sizes: Malignant_2\."):
        go(other, out)
    (other / "Malignant" / "2.jpg").unlink()
    with pytest.raises(InputError, match="prepared otherwise: images"):
        go(other, out)
    assert manifest.read(out).records == before.records


def test_no_set_within_its_own_source(source):
    for out in (source, source / "set"):
        with pytest.raises(InputError, match=r"--out .*: it lies in the source .*Derm-T2IM\."):
            go(source, out)
    assert sorted(p.name for p in source.iterdir()) == ["Benign", "Malignant"]
