"""What a command prints to, or writes into, is closed, full or read-only: one line, and never a traceback."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.cli import main
from tests.bad_input.test_targets import files_of_at_most
from tests.line import fit
from tests.rights import read_only


@pytest.fixture
def printed(monkeypatch):
    """A command whose help is printed with a sign that ASCII does not have."""
    monkeypatch.setattr("dermsynth.cli._help", lambda: "0.9 ± 0.1")


def test_an_output_that_knows_no_such_letter_gets_its_number(printed, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["--help"]) == 0
    sys.stdout.flush()
    assert written.getvalue() == b"0.9 \\xb1 0.1\n"


def test_no_output_at_all_is_none_of_a_commands_business(printed, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["--help"]) == 0


@pytest.mark.parametrize(("output", "status"), [("closed", 141), ("full", 2), ("none", 0)])
def test_a_real_process_whose_output_ends_says_at_most_one_line(output, status):
    command = [sys.executable, "-m", "dermsynth", "--help"]
    if output == "none":
        command = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    reader, writer = os.pipe()
    os.close(reader)
    with Path("/dev/full").open("w") as full, os.fdopen(writer, "w") as closed:
        stdout = {"closed": closed, "full": full, "none": None}[output]
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == (status == 2), done.stderr


def _one_line(said):
    lines = said.splitlines()
    [number] = [number for number, line in enumerate(lines) if line.startswith("dermsynth: error: ")]
    assert number == len(lines) - 1
    assert not any(line.startswith("Exception in thread") for line in lines)
    return lines[-1]


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_run_in_a_place_that_is_read_only(here, capsys, stage):
    Path("place").mkdir()
    fit()
    capsys.readouterr()
    more = [] if stage == "fit" else ["--ckpt_path", "r/checkpoints/best.ckpt"]
    with read_only(here / "place"):
        assert main([stage, "--config", "line.yaml", "--run", "place/run", *more]) == 2
    assert "Permission denied" in _one_line(capsys.readouterr().err)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_a_run_that_is_read_only(here, capsys, stage):
    fit("--trainer.max_epochs", "1")
    capsys.readouterr()
    more = [] if stage == "fit" else ["--ckpt_path", "r/checkpoints/best.ckpt"]
    Path("r/finished").unlink()
    with read_only(here / "r"):
        assert main([stage, "--config", "line.yaml", "--run", "r", "--trainer.max_epochs", "1", *more]) == 2
    assert "Permission denied" in _one_line(capsys.readouterr().err)


@pytest.mark.parametrize("words", ["phantoms --patients 1 --size 16"])
def test_a_tool_whose_target_is_read_only_or_full(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    Path("place").mkdir()
    with read_only(tmp_path / "place"):
        assert main([*words.split(), "--out", "place/out"]) == 2
    assert "place/out" in _one_line(capsys.readouterr().err)
    with files_of_at_most(100) as said:
        assert main([*words.split(), "--out", "out"]) == 2
    assert "File too large" in _one_line(said.getvalue())


@pytest.mark.parametrize("size", [10, 100, 3000])
def test_a_training_whose_disk_is_full_before_its_first_checkpoint(here, size):
    with files_of_at_most(size) as said:
        assert fit() == 2
    error = _one_line(said.getvalue())
    assert error.startswith("dermsynth: error: r")
    assert "File too large" in error
    assert not Path("r/finished").exists()
