"""prepare a second time: after a kill, into a set that is there, and what its command is known by."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from dermsynth.cli import main
from dermsynth.data.sets import images, manifest
from dermsynth.errors import InputError
from tests.tools.drawn import contents, download, go


def test_a_second_run_decodes_nothing_and_changes_nothing(source, tmp_path, monkeypatch):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    monkeypatch.setattr(images, "load", lambda *_: pytest.fail("decoded again"))
    go(source, out)
    assert contents(out) == before


# In each process that decodes, the images from the 17th on are never put in their place.
KILLED = """
import sys, time
from pathlib import Path
from dermsynth.tools.prepare import prepare

replace = Path.replace

def held(self, target):
    if target.suffix == ".png" and target.stem >= "ISIC_0000016":
        time.sleep(600)
    return replace(self, target)

Path.replace = held
if __name__ == "__main__":
    prepare([Path(sys.argv[1])], Path(sys.argv[2]), size=16, processes=2, fractions=(0.5, 0.25, 0.25))
"""


def test_kill_in_the_middle_then_the_same_command_gives_the_same_set(tmp_path):
    source = download(tmp_path / "isic2020", each=5)
    go(source, tmp_path / "whole", processes=2)
    out = tmp_path / "set"
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(source), str(out)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    done, begun = [], []
    try:
        until = time.monotonic() + 600
        while (len(done), len(begun)) != (16, 2) and time.monotonic() < until:
            time.sleep(0.02)
            done, begun = (list((out / "images").glob(pattern)) for pattern in ("*.png", ".*.part"))
    finally:
        process.send_signal(signal.SIGKILL)  # the parent only: its workers must end by themselves
        process.wait()
    assert (len(done), len(begun)) == (16, 2)
    assert not (out / "metadata.csv").exists()
    with pytest.raises(InputError, match=r"not a complete image set"):
        manifest.read(out)
    _wait_until_nobody_is_left(process.pid)
    begun[0].write_bytes(b"half")

    go(source, out, processes=2)

    whole, resumed = contents(tmp_path / "whole"), contents(out)
    whole.pop("dataset.json"), resumed.pop("dataset.json")
    assert resumed == whole


def _wait_until_nobody_is_left(session):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(session, signal.SIGKILL)
    pytest.fail("worker processes outlived their parent")


def test_an_image_cut_short_by_a_power_failure_is_written_again(source, tmp_path):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    (out / "metadata.csv").unlink()
    victim = out / "images" / "ISIC_0000003.png"
    victim.write_bytes(b"")
    go(source, out)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 24}, "size 16, now 24"),
        ({"seed": 9}, "seed 0, now 9"),
        ({"split": "official"}, "--split official"),
    ],
)
def test_another_preparation_in_the_same_folder_is_refused(source, tmp_path, change, message):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    with pytest.raises(InputError, match=message):
        go(source, out, **change)
    assert contents(out) == before


def test_another_source_in_the_same_folder_is_refused(source, tmp_path):
    out = tmp_path / "set"
    go(source, out)
    with pytest.raises(InputError, match="prepared otherwise: sources"):
        go(download(tmp_path / "copy"), out)


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(source, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.txt").write_text("cat")
    with pytest.raises(InputError, match="not empty and dermsynth did not make it"):
        go(source, tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.txt"]
    (tmp_path / "photos" / "dataset.json").write_text("[1]")  # somebody else's
    with pytest.raises(InputError, match="prepared otherwise"):
        go(source, tmp_path / "photos")
    with pytest.raises(InputError, match="a file"):
        go(source, tmp_path / "photos" / "cat.txt")


def test_the_recorded_command_is_the_command(source, tmp_path, monkeypatch):
    out = tmp_path / "elsewhere" / "set"
    (source / "train" / "ISIC_0000004.jpg").write_bytes(b"")
    go(source, out, folds=4, seed=3, max_broken=0.05, border_crop=True, near_duplicates=False)
    before = manifest.read(out)
    assert str(tmp_path) not in before.info["command"]
    words = shlex.split(before.info["command"])
    assert words[:3] == ["python", "-m", "dermsynth"]
    monkeypatch.chdir(tmp_path)
    assert main([*words[3:], "--processes", "1"]) == 0
    again = manifest.read(tmp_path / "set")
    assert again.records == before.records
    assert again.info == before.info


def test_fixed_images_complete_the_set(source, tmp_path):
    out = tmp_path / "set"
    go(source, tmp_path / "whole")
    path = source / "train" / "ISIC_0000004.jpg"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r"1 of 24 .*ISIC_0000004\.jpg: truncated"):
        go(source, out)
    go(source, out, max_broken=0.1)
    assert len(manifest.read(out).records) == 23
    path.write_bytes(whole)
    go(source, out)
    assert manifest.read(out).records == manifest.read(tmp_path / "whole").records
    assert not (out / "quarantine.csv").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda source: (source / "train" / "ISIC_0000001.jpg").unlink(),
        lambda source: (source / "train.csv").write_text("image,label\na,0\n"),
        lambda source: (source / "train.csv").unlink(),
    ],
)
def test_a_failing_second_run_leaves_a_complete_set_as_it_was(source, tmp_path, spoil):
    out = tmp_path / "set"
    go(source, out)
    before = contents(out)
    spoil(source)
    with pytest.raises(InputError):
        go(source, out)
    assert contents(out) == before
