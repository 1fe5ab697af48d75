import numpy as np
import pytest

from dermsynth.errors import InputError
from dermsynth.evaluation.runs import arm_and_seed, read_arms, read_run
from tests.evaluation.written_runs import HEADER, ROWS, configured, write
from tests.rights import without_rights


def changed(row, column, value):
    rows = [list(r) for r in ROWS]
    rows[row][HEADER.index(column)] = value
    return rows


def test_run_is_read_sorted_by_image(tmp_path):
    run = read_run(write(tmp_path / "hybrid-r50-seed12"))
    assert (run.arm, run.seed, run.classes) == ("hybrid-r50", 12, ("benign", "malignant"))
    assert run.image_ids == ("ISIC_1", "ISIC_2", "ISIC_3")
    assert run.label_index.tolist() == [0, 1, 0]
    assert run.group_index.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(run.probabilities, [[0.9, 0.1], [0.25, 0.75], [0.6, 0.4]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("real-seed0", ("real", 0)),
        ("real", ("real", None)),
        ("a-seed1-seed2", ("a-seed1", 2)),
        ("seed3", ("seed3", None)),
    ],
)
def test_arm_and_seed_from_the_folder_name(tmp_path, name, expected):
    assert arm_and_seed(tmp_path / name) == expected


def test_arm_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "real-seed4").mkdir()
    monkeypatch.chdir(tmp_path / "real-seed4")
    assert arm_and_seed(type(tmp_path)(".")) == ("real", 4)


def test_arms_keep_the_order_given_and_rows_may_be_in_any_order(tmp_path):
    folders = [
        write(tmp_path / "z-seed1"),
        write(tmp_path / "a-seed1", ROWS[::-1]),
        write(tmp_path / "z-seed2"),
    ]
    arms = read_arms(folders)
    assert {arm: [run.seed for run in runs] for arm, runs in arms.items()} == {"z": [1, 2], "a": [1]}
    assert list(arms) == ["z", "a"]


def test_missing_folder_and_file_and_predictions(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such run folder"):
        read_run(tmp_path / "nowhere")
    folder = write(tmp_path / "real")
    with pytest.raises(InputError, match=r"this is a file; give the folder of a run"):
        read_run(folder / "predictions.csv")
    (folder / "predictions.csv").unlink()
    with pytest.raises(InputError) as caught:
        read_run(folder)
    assert f"`python -m dermsynth test --config {folder}/fit.yaml --ckpt_path {folder}/checkpoints/best.ckpt`" in str(
        caught.value
    )


@pytest.mark.parametrize("column", ["image_id", "group", "split", "label"])
def test_missing_column_is_named(tmp_path, column):
    header = ["other" if name == column else name for name in HEADER]
    with pytest.raises(InputError, match=rf"predictions\.csv: column {column} is missing; found .*other"):
        read_run(write(tmp_path / "real", header=header))


def test_too_few_classes_and_no_rows(tmp_path):
    with pytest.raises(InputError, match="p_CLASS is needed for each of two or more classes"):
        read_run(write(tmp_path / "one", [row[:5] for row in ROWS], HEADER[:5]))
    with pytest.raises(InputError, match="no rows"):
        read_run(write(tmp_path / "none", []))
    for nothing in ("", "\ufeff", "\r\n\r\n"):
        (tmp_path / "none" / "predictions.csv").write_text(nothing, encoding="utf-8")
        with pytest.raises(InputError, match=r"predictions\.csv: the file is empty\. Write it again"):
            read_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("encode", "line"),
    [
        (lambda text: text.replace("benign,0.9", "b\xe9nign,0.9").encode("latin-1"), 3),
        (lambda text: b"\xef\xbb\xbf" + text.encode().replace(b"ISIC_1", b"\xff"), 3),
        (lambda text: text.encode("utf-16"), 1),
    ],
)
def test_predictions_that_are_not_utf8_are_named_by_line(tmp_path, encode, line):
    table = write(tmp_path / "real") / "predictions.csv"
    table.write_bytes(encode(table.read_text()))
    with pytest.raises(InputError) as caught:
        read_run(tmp_path / "real")
    assert str(caught.value).startswith(f"{table}, line {line}: not UTF-8 text.")


def test_predictions_with_a_byte_order_mark_or_an_open_quote(tmp_path):
    table = write(tmp_path / "real") / "predictions.csv"
    table.write_text(table.read_text(), encoding="utf-8-sig")
    assert len(read_run(tmp_path / "real").image_ids) == 3
    table.write_text(table.read_text(encoding="utf-8-sig").replace("ISIC_3", '"ISIC_3'))
    with pytest.raises(InputError, match=r"predictions\.csv, line 4: not CSV"):
        read_run(tmp_path / "real")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, "group", ""), "line 3: group is blank"),
        ([[*row[:2], "train", *row[3:]] for row in ROWS], "line 2: split 'train'; expected test or val, as models are"),
        ([[*row[:2], "banana", *row[3:]] for row in ROWS], "line 2: split 'banana'; expected test or val"),
        (changed(1, "label", "nevus"), "line 3: label 'nevus' is not among the classes benign, malignant"),
        (changed(1, "p_benign", "high"), "line 3: a probability is not a number"),
        (changed(1, "p_benign", "nan"), "line 3: a probability lies outside 0 to 1: nan, 0.1"),
        (changed(1, "p_benign", "-0.1"), "line 3: a probability lies outside 0 to 1: -0.1, 0.1"),
        (changed(1, "p_benign", "inf"), "line 3: a probability lies outside 0 to 1: inf, 0.1"),
        ([ROWS[0], [*ROWS[1], "0"], ROWS[2]], "line 3: more cells than the header has columns"),
        (changed(1, "p_benign", "1.1"), "line 3: a probability lies outside 0 to 1"),
        (changed(1, "p_benign", "0.8"), "line 3: the probabilities sum to 0.9; expected 1"),
        ([ROWS[0], ROWS[1][:5], ROWS[2]], "line 3: a probability is not a number"),
        ([*ROWS, ROWS[0]], "image ISIC_2 occurs twice"),
    ],
)
def test_bad_row_is_named(tmp_path, rows, message):
    with pytest.raises(InputError) as caught:
        read_run(write(tmp_path / "real", rows))
    assert message in str(caught.value)
    assert "predictions.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (
            ROWS,
            [*HEADER[:4], "p_malignant", "p_benign"],
            "classes ['benign', 'malignant'] and ['malignant', 'benign']",
        ),
        (ROWS[:2], HEADER, "image ISIC_3 is in {a} and not in {b} (1 such)"),
        ([*ROWS, ["ISIC_9", *ROWS[0][1:]]], HEADER, "image ISIC_9 is in {b} and not in {a} (1 such)"),
        (
            changed(2, "label", "malignant"),
            HEADER,
            "image ISIC_3 differs in labels: benign in the first, malignant in",
        ),
        (
            changed(2, "split", "val"),
            HEADER,
            "image ISIC_3 differs in splits: test in the first, val in the second",
        ),
        (changed(2, "group", "patient-z"), HEADER, "image ISIC_3 differs in groups: two groups"),
    ],
)
def test_runs_of_different_images_are_refused(tmp_path, rows, header, message):
    a, b = write(tmp_path / "real"), write(tmp_path / "hybrid", rows, header)
    with pytest.raises(InputError) as caught:
        read_arms([a, b])
    assert f"{a} and {b} cannot be compared" in str(caught.value)
    assert message.format(a=a, b=b) in str(caught.value)
    assert "patient-" not in str(caught.value)


def test_run_given_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="both arm real, seed 1"):
        read_arms([write(tmp_path / "a" / "real-seed1"), write(tmp_path / "b" / "real-seed1")])
    with pytest.raises(InputError, match="both arm real, no seed"):
        read_arms([write(tmp_path / "real")] * 2)


def test_images_without_a_patient_or_lesion_are_counted(tmp_path):
    assert read_run(write(tmp_path / "real")).n_without_id == 0
    assert read_run(write(tmp_path / "some", changed(0, "group", "ISIC_2"))).n_without_id == 1
    # Of near-duplicates the one has the other's name, and the other may be in no split, or of a class left out.
    assert read_run(write(tmp_path / "moved", changed(0, "group", "image:ISIC_9"))).n_without_id == 1
    assert read_run(write(tmp_path / "copies", changed(0, "group", "ISIC_3"))).n_without_id == 1


@pytest.mark.parametrize("what", ["", "predictions.csv", "fit.yaml"])
def test_what_cannot_be_read_of_a_run_is_named(tmp_path, what):
    run = configured(tmp_path / "real")
    with without_rights(run / what), pytest.raises(InputError) as error:
        read_run(run)
    assert f"{run / what}: cannot be read (Permission denied)." in str(error.value)
