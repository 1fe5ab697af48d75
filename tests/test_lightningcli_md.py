"""Every command of LightningCLI.md is run, in order, in one folder; its files are saved as it says.

Training commands run in processes that are forked from one that has imported everything: starting anew takes six
seconds, and the page has many commands. That a process of one's own works too is tested in test_cli and test_training.
"""

import multiprocessing
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEAVY = ["dermsynth.training", "dermsynth.classification.classifier", "dermsynth.data.modules"]


def blocks():
    return BLOCK.findall((ROOT / "LightningCLI.md").read_text(encoding="utf-8"))


def call(words, out, log):
    """What `python -m dermsynth WORDS > OUT 2> LOG` does, in the current folder."""
    sys.path.insert(0, str(Path.cwd()))
    sys.argv = ["dermsynth", *words]
    for descriptor, path in ((1, out), (2, log)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.exit(main())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command line in an empty folder with configs/; gives status and output."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    for name, value in {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)

    def run(command):
        program, words = shlex.split(command)[:3], shlex.split(command)[3:]
        assert program == ["python", "-m", "dermsynth"], command
        log = tmp_path / "log"
        log.write_text("")
        words, out = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, log)
        if "training" not in COMMANDS.get(words[0], ("",))[0]:
            with log.open("w") as file:
                done = subprocess.run([sys.executable, *program[1:], *words], stdout=file, stderr=file, check=False)
            return done.returncode, log.read_text()
        process = context.Process(target=call, args=(words, out, log))
        process.start()
        process.join()
        return process.exitcode, log.read_text()

    return run


def test_every_block_is_of_a_kind_that_is_run():
    assert {kind for kind, _ in blocks()} == {"bash", "console", "python", "yaml"}


@pytest.mark.slow
def test_the_page_does_what_it_says(run):
    for kind, text in blocks():
        if kind in ("python", "yaml"):
            name = text.splitlines()[0].removeprefix("# ")
            assert re.fullmatch(r"\w+\.(py|yaml)", name)
            Path(name).write_text(text)
        elif kind == "console":
            command, *expected = text.removeprefix("$ ").splitlines()
            status, shown = run(command)
            assert status == 2, shown
            assert [line for line in expected if line not in shown] == [], shown
            assert "Traceback" not in shown
        else:
            for command in text.splitlines():
                status, shown = run(command)
                assert status == 0, f"{command}\n{shown}"
    for name in ("real-seed0/predictions.csv", "longer/finished", "patient/finished", "mine-seed0/test.yaml"):
        assert (Path("runs") / name).is_file()
    assert not Path("runs/debug").exists()
    assert not Path("runs/x").exists()
    assert Path("comparison/comparison.csv").is_file()
    assert "lr: 0.0001" in Path("resolved.yaml").read_text()
