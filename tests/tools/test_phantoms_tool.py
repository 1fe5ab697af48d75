import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.data.phantoms import patients
from dermsynth.data.prepare.layouts.recognise import read_download
from dermsynth.errors import InputError
from dermsynth.tools.phantoms import phantoms


def test_prepare_reads_what_was_drawn(tmp_path, capsys):
    phantoms(tmp_path / "set", patients=4, size=32)
    printed = capsys.readouterr().out
    layout, _, download = read_download(tmp_path / "set")
    assert layout.name == "isic2020"
    assert download.duplicates_dropped == 1
    images = len(list((tmp_path / "set" / "train").glob("*.jpg")))
    assert len(download.images) == images - 1
    assert f"{images} phantom images of 4 patients" in printed


def test_every_argument_is_described_and_typed():
    signature = inspect.signature(phantoms)
    assert signature.parameters["out"].annotation is Path
    described = inspect.getdoc(phantoms).split("Args:")[1].split("Raises:")[0]
    assert all(f"    {name}: " in described for name in signature.parameters)


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        phantoms(tmp_path, patients=1, size=16)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_of_two_at_once_in_one_folder_one_is_refused(tmp_path, monkeypatch):
    """The other has begun after this one found the folder empty."""

    def meanwhile(*given):
        (tmp_path / "set/train").mkdir(parents=True)
        return planned(*given)

    planned = patients.plan
    monkeypatch.setattr(patients, "plan", meanwhile)
    with pytest.raises(InputError, match=r"set/train: no folder can be made there \(File exists\)\.") as refused:
        phantoms(tmp_path / "set", patients=1, size=16)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "set").rglob("*.*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"patients": 10**12}, "--patients 1000000000000: expected 1 to 1,000,000"),
        ({"size": 10**8}, "--size 100000000: expected 16 to 8192 pixels"),
        ({"size": 15}, "--size 15: expected 16 to"),
    ],
)
def test_numbers_that_no_disk_holds_are_refused_before_anything_is_drawn(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        phantoms(tmp_path / "set", **flags)
    assert not (tmp_path / "set").exists()


def test_a_file_in_the_way_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder can be made there"):
        phantoms(tmp_path / "file/set", patients=1, size=16)


def test_needs_no_torch():
    code = "import sys, dermsynth.tools.phantoms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_was_broken_off_is_drawn_again_by_the_same_command_alone(tmp_path, monkeypatch):
    def fails(phantom, seed, size):
        if phantom.number == 2:
            raise KeyboardInterrupt
        return draw_one(phantom, seed, size)

    draw_one = patients.picture
    monkeypatch.setattr(patients, "picture", fails)
    with pytest.raises(KeyboardInterrupt):
        phantoms(tmp_path / "set", patients=1, size=16)
    monkeypatch.undo()
    with pytest.raises(InputError, match="not an empty folder"):
        phantoms(tmp_path / "set", patients=1, size=16, seed=1)
    phantoms(tmp_path / "set", patients=1, size=16)
    phantoms(tmp_path / "whole", patients=1, size=16)
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.*"))
    assert len(files) > 4
    assert all((tmp_path / "set" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes() for file in files)
    with pytest.raises(InputError, match="not an empty folder"):
        phantoms(tmp_path / "set", patients=1, size=16)
