"""Any CSV whose columns are named."""

import pytest

from dermsynth.data.prepare.layouts.download import Choices, Columns
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from tests.data.prepare.layouts.helpers import read, rewrite, touch, write

COLUMNS = Columns(
    image="file",
    label="dx",
    malignant="bad",
    patient="who",
    lesion="which",
    sex="sex",
    age="years",
    site="where",
    skin_tone="tone",
    split="fold",
    license="terms",
    attribution="by",
)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "clinic"
    write(
        folder / "labels.csv",
        "file,dx,bad,who,which,sex,years,where,tone,fold,terms,by,secret",
        "a.jpg,naevus,0,P1,L1,female,40,back,III,training,CC-BY,me,x",
        "pictures/b,melanoma,1,P2,L2,male,,,,validation,CC-0,you,y",
        "c,,,P3,,,,,,test,,,z",
    )
    for name in ("a.jpg", "pictures/b.png", "pictures/deep/c.jpeg"):
        touch(folder / name)
    return folder


def go(folder, columns=COLUMNS, **labels):
    return read(folder, "csv", Choices(columns=columns, labels=labels))


def test_records(folder):
    layout, why, _ = read_download(folder, "auto", Choices(columns=COLUMNS))
    assert (layout.name, why) == ("csv", "found labels.csv with column file")
    records, download = go(folder)
    assert [(i.path.relative_to(folder).as_posix(), i.record.image_id) for i in download.images] == [
        ("a.jpg", "a"),
        ("pictures/b.png", "b"),
        ("pictures/deep/c.jpeg", "c"),
    ]
    a, b, c = records.values()
    assert (a.diagnosis, a.malignant, a.patient_id, a.lesion_id, a.sex, a.age_approx) == (
        "NV", 0, "P1", "L1", "female", 40.0,
    )  # fmt: skip
    assert (a.anatom_site_general, a.skin_tone, a.license, a.attribution) == ("back", "III", "CC-BY-4.0", "me")
    assert (b.diagnosis, b.malignant, b.license) == ("MEL", 1, "CC0-1.0")
    assert (c.diagnosis, c.malignant) == ("", None)
    assert [r.split for r in records.values()] == ["train", "val", "test"]
    assert download.official_split
    assert {r.source for r in records.values()} == {"clinic"}


def test_a_column_that_is_not_named_is_not_read(folder):
    records, download = go(folder, Columns(image="file", label="dx"))
    assert {r.patient_id for r in records.values()} == {""}
    assert {r.split for r in records.values()} == {"unused"}
    assert not download.official_split
    assert [r.malignant for r in records.values()] == [0, 1, None]  # by the diagnosis
    assert all("secret" not in r.extra for r in records.values())


def test_the_malignant_column_adds_to_the_label_and_the_label_decides(folder):
    rewrite(folder / "labels.csv", "naevus,0", "unknown,malignant")
    assert go(folder)[0]["a"].malignant == 1
    rewrite(folder / "labels.csv", "unknown,malignant", "naevus,malignant")
    records, download = go(folder)
    assert records["a"].malignant == 0
    assert any("NV called malignant 1" in note for note in download.notes)


def test_a_split_column_that_cannot_be_used_is_refused(folder):
    rewrite(folder / "labels.csv", "test", "val")
    with pytest.raises(InputError, match=r"--columns\.split .*has the parts train, val; expected train and"):
        go(folder)


def test_unknown_labels_are_all_listed_and_can_be_mapped(folder):
    rewrite(folder / "labels.csv", "naevus", "mole")
    rewrite(folder / "labels.csv", "c,,", "c,odd one,")
    with pytest.raises(InputError, match=r"labels\.csv: labels that are not known: 'mole' \(1\), 'odd one' \(1\)"):
        go(folder)
    records, _ = go(folder, mole="NV", odd_one="unknown")
    assert [r.diagnosis for r in records.values()] == ["NV", "MEL", ""]


def test_the_table_is_chosen_by_its_column_or_by_name(folder):
    write(folder / "other.csv", "id,age", "a,4")
    assert len(go(folder)[0]) == 3
    write(folder / "more.csv", "file,dx", "a,nv")
    with pytest.raises(InputError, match=r"column file: labels\.csv, more\.csv\. Choose by --columns\.table"):
        go(folder)
    assert list(go(folder, Columns(table="more.csv", image="file", label="dx"))[0]) == ["a"]
    with pytest.raises(InputError, match=r"no nothing\.csv with a column file"):
        go(folder, Columns(table="nothing.csv", image="file", label="dx"))


def test_a_known_layout_beside_it_asks_for_a_choice(folder):
    (folder / "labels.csv").rename(folder / "train.csv")
    with pytest.raises(InputError, match=r"isic2020 \(found train\.csv\), csv \(found train\.csv with column file\)"):
        read(folder, "auto", Choices(columns=COLUMNS))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("a.jpg,", "../a.jpg,", r"line 2: image '\.\./a\.jpg'; expected a name, or a path inside"),
        ("a.jpg,", "/etc/a.jpg,", "line 2: image '/etc/a.jpg'"),
        ("a.jpg,", "pictures\\a.jpg,", "line 2: image .* with /"),
        ("a.jpg,", ",", "line 2: image ''"),
        ("a.jpg,", "missing,", r"1 of 3 images .* missing: missing"),
        ("a.jpg,", "c,", "line 4: image 'c' occurs twice"),
        (",0,P1", ",2,P1", "line 2: malignant '2'; expected 0 or 1"),
        (",40,", ",old,", "line 2: age 'old'; expected a number"),
        ("training", "first", "line 2: split 'first'; expected train, val or test"),
        ("file,dx", "file,diagnosis", "column dx is missing"),
    ],
)
def test_a_bad_cell_is_named(folder, old, new, message):
    rewrite(folder / "labels.csv", old, new)
    with pytest.raises(InputError, match=message):
        go(folder)


def test_a_name_that_two_files_have_is_an_error_and_a_path_is_not(folder):
    touch(folder / "pictures" / "a.jpg")
    records, download = go(folder)  # a.jpg is also a path
    assert download.images[0].path == folder / "a.jpg"
    assert download.files_without_row == 1
    assert len(records) == 3
    rewrite(folder / "labels.csv", "a.jpg,", "a,")
    with pytest.raises(InputError, match=r"image 'a' may be a\.jpg, pictures/a\.jpg\. Give its path"):
        go(folder)


def test_image_and_label_must_be_named(folder):
    for columns in (Columns(), Columns(image="file"), Columns(label="dx")):
        with pytest.raises(InputError, match=r"--columns\.image, and --columns\.label or \.malignant"):
            go(folder, columns)


@pytest.mark.parametrize("text", ["", "file,dx\n", "x" * 1000, None])
def test_a_table_without_the_named_column_is_answered_with_the_column(folder, text):
    if text is not None:
        (folder / "labels.csv").write_text(text.replace("file", "name"))
    columns = COLUMNS if text is not None else Columns(image="absent", label="dx")
    with pytest.raises(InputError, match=rf"no CSV with a column {columns.image} in it\. See --columns\.table\.$"):
        read_download(folder, "auto", Choices(columns=columns))


def test_a_table_that_is_not_utf_8_is_named(folder):
    table = folder / "labels.csv"
    table.write_bytes(table.read_text().replace("back", "R\u00fccken").encode("latin-1"))
    with pytest.raises(InputError, match=r"labels\.csv: not UTF-8"):
        read_download(folder, "auto", Choices(columns=COLUMNS))


def test_tabs_and_semicolons_stand_between_cells_as_well(folder):
    before, table = go(folder)[0], folder / "labels.csv"
    for mark in "\t;":
        table.write_text(table.read_text().replace(",", mark))
        assert go(folder)[0] == before


def test_a_column_that_is_named_and_there_twice_is_refused(folder):
    rewrite(folder / "labels.csv", "secret", "dx")
    with pytest.raises(InputError, match="column dx occurs twice"):
        go(folder)


@pytest.mark.parametrize("years", ["inf", "nan ", "-5.0", "99999", "1e308"])
def test_an_age_that_nobody_has_is_refused_or_unknown(folder, years):
    rewrite(folder / "labels.csv", ",40,", f",{years},")
    if "nan" in years:
        assert go(folder)[0]["a"].age_approx is None
    else:
        with pytest.raises(InputError, match=r"line 2: age .*; expected 0 to 150 years"):
            go(folder)


@pytest.mark.parametrize(
    "word", ["-1", "?", "unknown", "NaN", "null", "#N/A", "n.d.", "Not available", "Unknown patient"]
)
def test_an_id_that_stands_for_none_is_none(folder, word):
    rewrite(folder / "labels.csv", "P1,L1", f"{word},{word}")
    record = go(folder)[0]["a"]
    assert (record.patient_id, record.lesion_id) == ("", "")


def test_files_of_other_suffixes_are_counted_and_one_that_is_named_is_refused(folder):
    for name in ("d.gif", "pictures/e.GIF", "pictures/b_segmentation.png", "notes.txt", ".hidden", "other.csv"):
        touch(folder / name)
    assert go(folder)[1].notes == (
        "files passed over (.gif 2, .txt 1, _segmentation.png 1); only .jpg, .jpeg, .png, .dcm are read",
    )
    rewrite(folder / "labels.csv", "a.jpg", "d.gif")
    with pytest.raises(
        InputError, match=r"1 of 3 images .* missing: d\.gif\. Looked in .*clinic for \.jpg, \.jpeg, \.png"
    ):
        go(folder)
