import base64
import csv
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dermsynth.audit.reading import COLUMNS, KEY, SHEET, score, write_sheet
from dermsynth.audit.sides import read_sides
from dermsynth.errors import InputError
from tests.builders import CLASSES, make_set


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    real = make_set(root / "real", dict.fromkeys(CLASSES, 40), size=24)
    made = make_set(root / "made", {"NV": 12, "MEL": 30, "SK": 3}, "train", "synthetic", size=16)
    generated, originals = read_sides([made], real)
    return generated, originals.of_split("val", "test")


def rows_of(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_sheet_is_one_file_that_tells_nothing_and_the_key_tells_all(sides, tmp_path):
    assert write_sheet(*sides, count=20, out=tmp_path, seed=0) == 20
    page, key = (tmp_path / SHEET).read_text(), rows_of(tmp_path / KEY)
    assert not re.search(r'(src|href)="(?!data:)|https?://|url\(|@import', page)
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert len(pictures) == len(key) == 20
    images = [Image.open(io.BytesIO(picture)) for picture in pictures]
    assert {(image.size, image.mode, tuple(image.info)) for image in images} == {((16, 16), "RGB", ())}
    bare = re.sub(r"base64,[^\"]+", "", page)
    assert not any(row["image_id"] in bare for row in key)
    assert not any(record.group in page + (tmp_path / KEY).read_text() for record in sides[1].records)
    # As many of each class on both sides, and the three of the smallest class are all there.
    counts = {(row["origin"], row["class"]): 0 for row in key}
    for row in key:
        counts[row["origin"], row["class"]] += 1
    assert counts == {(o, c): n for o in ("real", "generated") for c, n in (("MEL", 4), ("NV", 3), ("SK", 3))}
    # The key says which picture is which.
    for row, image in zip(key, images, strict=True):
        side = sides[row["origin"] == "real"]
        place = [record.image_id for record in side.records].index(row["image_id"])
        shown, file = np.asarray(image).astype(int), np.asarray(Image.open(side.paths[place]).resize((16, 16)))
        assert np.abs(shown.mean(axis=(0, 1)) - file.mean(axis=(0, 1))).max() < 3
    runs = "".join(row["origin"][0] for row in key)
    assert "rg" in runs
    assert "gr" in runs


def test_a_real_patient_is_shown_once(sides, tmp_path):
    generated, real = sides
    few = replace(real, images=tuple((n, replace(r, group=f"p{k % 4}")) for k, (n, r) in enumerate(real.images)))
    written = write_sheet(generated, few, count=20, out=tmp_path, seed=0)
    shown = [row["image_id"] for row in rows_of(tmp_path / KEY) if row["origin"] == "real"]
    patients = [record.group for record in few.records if record.image_id in shown]
    assert len(patients) == len(set(patients)) == written // 2 <= 4


@pytest.fixture
def sheet(sides, tmp_path):
    """A sheet of 40 pictures, and a way to answer it."""
    write_sheet(*sides, count=40, out=tmp_path, seed=1)
    key = rows_of(tmp_path / KEY)

    def answer(name, wrong=(), blank=(), sheet=None):
        file = tmp_path / f"{name}.csv"
        with file.open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(COLUMNS)
            for row in key:
                item, other = int(row["item"]), {"real": "generated", "generated": "real"}
                said = other[row["origin"]] if item in wrong else row["origin"]
                grade = 5 if row["origin"] == "real" else 2
                ticks = ("", "") if item in blank else (said, grade)
                writer.writerow([sheet or row["sheet"], name, item, *ticks])
        return file

    return tmp_path / KEY, key, answer


def test_answers_are_scored(sheet):
    file, key, answer = sheet
    n = len(key)
    real = [int(row["item"]) for row in key if row["origin"] == "real"]
    found = score([answer("ann", wrong=real[:4]), answer("bob", blank=[1, 2])], file)
    ann, bob = found.readers
    assert (ann.name, ann.n, bob.name, bob.n) == ("ann", n, "bob", n - 2)
    assert ann.accuracy.value == pytest.approx((n - 4) / n)
    assert (ann.of_real.value, ann.of_synthetic.value) == (pytest.approx((n / 2 - 4) / (n / 2)), 1)
    assert bob.accuracy.value == 1
    assert (ann.quality_real, ann.quality_synthetic) == (5, 2)
    assert found.accuracy.value == pytest.approx((2 * n - 6) / (2 * n - 2))
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    (pair,) = found.agreement
    said = {int(row["item"]): (row["origin"] == "real") for row in key}
    both = [item for item in said if item not in (1, 2)]
    first = [said[item] ^ (item in real[:4]) for item in both]
    second = [said[item] for item in both]
    agree = np.mean(np.equal(first, second))
    chance = np.mean(first) * np.mean(second) + (1 - np.mean(first)) * (1 - np.mean(second))
    assert (pair.first, pair.second, pair.n) == ("ann", "bob", n - 2)
    assert pair.kappa == pytest.approx((agree - chance) / (1 - chance))


def test_where_all_is_called_real_kappa_says_nothing(sheet):
    file, key, answer = sheet
    generated = [int(row["item"]) for row in key if row["origin"] == "generated"]
    found = score([answer("ann", wrong=generated), answer("bob", wrong=generated)], file)
    assert found.agreement[0].kappa is None
    assert found.accuracy.value == 0.5


def test_files_that_are_no_answers_are_refused(sheet):
    file, _, answer = sheet
    good = answer("ann").read_text()
    for change, message in (
        (("generated,", "fake,"), r"verdict 'fake'; expected real or generated"),
        ((",5\n", ",6\n"), r"quality '6'; expected 1 to 5"),
        ((",2,", ",1,"), r"item '1' is not on the sheet, or occurs twice"),
        (("sheet,reader", "leaf,reader"), "expected rows with the columns sheet, reader, item, verdict, quality"),
    ):
        bad = file.with_name("bad.csv")
        bad.write_text(good.replace("\r\n", "\n").replace(*change))
        with pytest.raises(InputError, match=message):
            score([bad], file)
    with pytest.raises(InputError, match="line 2: it answers sheet 'other', and the key is of"):
        score([answer("eve", sheet="other")], file)
    with pytest.raises(InputError, match="another file is by the reader 'ann'"):
        score([answer("ann"), answer("ann")], file)
    mixed = file.with_name("mixed.csv")
    mixed.write_text(answer("ann").read_text().replace("ann,3", "tim,3"))
    with pytest.raises(InputError, match="names 2 readers"):
        score([mixed], file)
    mixed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a CSV file in UTF-8"):
        score([mixed], file)


def test_too_few_pictures_are_refused(sides, tmp_path):
    with pytest.raises(InputError, match="--reading-sheet 1: give the number of pictures"):
        write_sheet(*sides, count=1, out=tmp_path, seed=0)
    generated, real = sides
    nevi = replace(real, images=tuple(pair for pair in real.images if pair[1].diagnosis == "NV"))
    melanomas = replace(generated, images=tuple(p for p in generated.images if p[1].diagnosis == "MEL"))
    with pytest.raises(InputError, match="no class has both"):
        write_sheet(melanomas, nevi, count=10, out=tmp_path, seed=0)
