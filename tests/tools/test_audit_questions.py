"""The questions that the command asks only where it is given a checkpoint, a classifier, readers."""

import csv

import pytest

from dermsynth import made_from
from dermsynth.audit import result
from dermsynth.audit.reading import COLUMNS, KEY, SHEET
from dermsynth.cli import main
from dermsynth.data.sets import manifest
from tests.audit.memorised import make_coloured_set
from tests.audit.runs import classifier, generator
from tests.builders import CLASSES, make_set


@pytest.fixture(scope="module")
def told(tmp_path_factory, base):
    """All that the command is told."""
    folder = tmp_path_factory.mktemp("audit")
    real = make_coloured_set(folder / "real", dict.fromkeys(CLASSES, 24))
    split = manifest.train_split_sha256(manifest.read(real).records)
    made = make_set(folder / "made", {"NV": 8, "MEL": 6}, "train", "synthetic", train_split_sha256=split)
    checkpoint = generator(folder / "generator", base, real, 1, 0.0)
    words = ["--synthetic", made, "--real", real, "--checkpoint", checkpoint, checkpoint, "--reading-sheet", 10]
    words += ["--classifier", classifier(folder / "classifier", real), "--out", folder / "out"]
    return [str(word) for word in words], folder / "out"


@pytest.fixture(scope="module")
def audited(told):
    words, out = told
    assert main(["audit", *words]) == 0
    return out


def test_every_question_is_answered_and_read_as_it_was_written(audited):
    found = result.read(audited)
    assert [test.checkpoint for test in found.membership] == ["generator/last.ckpt"] * 2
    assert found.membership[0].overall.auroc.value == 0.5
    assert set(found.labels.classes) == set(found.two_sample.classes) == {"NV", "MEL"}
    assert found.artefacts.size == 16
    assert found.readings is None
    assert result.AuditResult.from_dict(found.to_dict()) == found
    said = (audited / "audit.txt").read_text()
    for question in ("in the training set?", "what its label says?", "told from the real thing?", "Are artefacts"):
        assert question in said
    assert max(map(len, said.splitlines())) <= 100
    assert (audited / "membership.png").is_file()


def test_what_it_was_made_from(audited):
    entry = made_from.read(audited)["audit"]
    assert list(entry["inputs"]) == ["real", "synthetic.0", "checkpoint.0", "checkpoint.1", "classifier"]
    assert entry["settings"]["reading_sheet"] == 10


def test_readers_are_scored_and_the_rest_stays(told, audited, capsys):
    words, out = told
    before, pages = result.read(out), [(out / name).read_bytes() for name in (SHEET, KEY)]
    answers = out.with_name("ann.csv")
    with (out / KEY).open(newline="") as lines, answers.open("w", newline="") as file:
        rows = [(row["sheet"], "ann", row["item"], row["origin"], 3) for row in csv.DictReader(lines)]
        csv.writer(file).writerows([COLUMNS, *rows])
    assert main(["audit", *words, "--score", str(answers)]) == 0
    found = result.read(out)
    assert found.readings.accuracy.value == 1
    assert found.to_dict() | {"readings": None} == before.to_dict()
    assert [(out / name).read_bytes() for name in (SHEET, KEY)] == pages
    assert "Can readers tell it from the real thing?" in capsys.readouterr().out


def test_what_is_no_checkpoint_or_key_is_an_error_of_one_line(told, tmp_path, capsys):
    words, _ = told
    words = [*words[: words.index("--checkpoint")], "--out", str(tmp_path / "out")]
    assert main(["audit", *words, "--checkpoint", str(tmp_path / "none.ckpt")]) == 2
    assert main(["audit", *words, "--score", str(tmp_path / "ann.csv")]) == 2
    first, second = capsys.readouterr().err.strip().splitlines()[-2:]
    assert "none.ckpt: no such checkpoint" in first
    assert "audit.json" in second
