"""Training processes that are killed at random moments: the same command resumes, and ends with the same bits."""

import os
import random
import signal
import sys
import time

import pytest

from callbacks.preemption import STOPPED
from dermsynth.run.folder import FINISHED, last_checkpoint
from tests.interruptions import assert_same, classifier, dreambooth, fit
from tests.processes import TIMEOUT, start


def train(rank, recipe, run):
    """What a process does: the command, its words in a file."""
    log = os.open(log_of(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(fit(recipe, run))


def log_of(run):
    return run.with_name(f"{run.name}.log")


def finish(recipe, run, ranks):
    """Let it come to its end."""
    processes = start(train, ranks, recipe, run)
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [0] * ranks, log_of(run).read_text()


def kill_after_a_checkpoint(recipe, run, ranks, number, victims):
    """Start it, wait for the next checkpoint and a random moment more, then send a signal; the exit codes."""
    last = last_checkpoint(run)
    before = last.stat().st_ino if last.exists() else None
    processes = start(train, ranks, recipe, run)
    deadline = time.monotonic() + TIMEOUT
    while (last.stat().st_ino if last.exists() else None) == before and all(p.is_alive() for p in processes):
        assert time.monotonic() < deadline, log_of(run).read_text()
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.1))
    for rank in victims:
        os.kill(processes[rank].pid, number)
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode is not None, "a process waits for one that is gone"
    return [process.exitcode for process in processes]


def killed_run(recipe, run, ranks, kills):
    """A run that is killed again and again, and then comes to its end."""
    for number, victims in kills:
        assert not (run / FINISHED).exists(), "too short to be killed so often"
        codes = kill_after_a_checkpoint(recipe, run, ranks, number, victims)
        assert all(codes[rank] in (-number, STOPPED) for rank in victims), codes  # the latter by Preemption
        assert not (run / FINISHED).exists()
    finish(recipe, run, ranks)
    assert not list((run / "checkpoints").glob(".*"))


KILL, TERMINATE = (signal.SIGKILL, [0]), (signal.SIGTERM, [0])


@pytest.mark.parametrize(
    "options",
    [{"ema": True, "accumulate": 2}, {"lora": True, "accumulate": 3}],
    ids=["all weights", "lora"],
)
def test_one_process(base, tmp_path, options):
    recipe = dreambooth(tmp_path, base, max_steps=12, **options)
    finish(recipe, tmp_path / "whole", 1)
    killed_run(recipe, tmp_path / "killed", 1, [KILL, TERMINATE, KILL])
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_classifier(tmp_path):
    recipe = classifier(tmp_path, max_steps=12)
    finish(recipe, tmp_path / "whole", 1)
    killed_run(recipe, tmp_path / "killed", 1, [KILL, KILL])
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "kills"),
    [
        ({"ema": True, "accumulate": 2}, [(signal.SIGKILL, [0, 1]), (signal.SIGKILL, [1]), (signal.SIGKILL, [0])]),
        ({"lora": True, "accumulate": 3, "stops": True}, [(signal.SIGTERM, [1]), (signal.SIGKILL, [0])]),
    ],
    ids=["all weights", "lora"],
)
def test_two_processes(base, tmp_path, options, kills):
    """One is killed or told to stop, or both at once; where one is gone, the other does not wait for it."""
    recipe = dreambooth(tmp_path, base, max_steps=12, devices=2, strategy="ddp", **options)
    finish(recipe, tmp_path / "whole", 2)
    killed_run(recipe, tmp_path / "killed", 2, kills)
    assert_same(tmp_path / "whole", tmp_path / "killed")
