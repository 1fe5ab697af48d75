"""Training processes that are killed at random moments: the same command goes on, and ends with the same bits."""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch

from dermsynth.run_folder import FINISHED, last_checkpoint
from tests.interruptions import assert_same, classifier, dreambooth, fit

# Processes are forked from one that has imported everything, as importing takes longer than all that is tested.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "callbacks.ema",
        "dermsynth.classification.classifier",
        "dermsynth.data.modules",
        "dermsynth.diffusion.dreambooth",
        "dermsynth.training",
        "tests.interruptions",
    ]
)
TIMEOUT = 120


def work(recipe, run, rank, port, log):
    """What a process does: the command, as one rank of a distributed run if there are several."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["dermsynth"]
    torch.set_num_threads(1)
    if port is not None:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    sys.exit(fit(recipe, run))


def start(recipe, run, ranks):
    port = None
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
    log = run.with_name(f"{run.name}.log")
    processes = [PROCESSES.Process(target=work, args=(recipe, run, rank, port, log)) for rank in range(ranks)]
    for process in processes:
        process.start()
    return processes


def finish(recipe, run, ranks):
    """Let it come to its end."""
    processes = start(recipe, run, ranks)
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [0] * ranks, run.with_name(f"{run.name}.log").read_text()


def kill_after_a_checkpoint(recipe, run, ranks, number, victims):
    """Start it, wait for the next checkpoint and a random moment more, then send a signal; the exit codes."""
    last = last_checkpoint(run)
    before = last.stat().st_ino if last.exists() else None
    processes = start(recipe, run, ranks)
    deadline = time.monotonic() + TIMEOUT
    while (last.stat().st_ino if last.exists() else None) == before and all(p.is_alive() for p in processes):
        assert time.monotonic() < deadline, run.with_name(f"{run.name}.log").read_text()
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.3))
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
        # 128 + 15: the signal was noted and obeyed at the end of a batch.
        assert all(codes[rank] in (-number, 128 + number) for rank in victims), codes
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
    recipe = dreambooth(tmp_path, base, max_steps=20, **options)
    finish(recipe, tmp_path / "whole", 1)
    killed_run(recipe, tmp_path / "killed", 1, [KILL, TERMINATE, KILL])
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_classifier(tmp_path):
    recipe = classifier(tmp_path, max_steps=20)
    finish(recipe, tmp_path / "whole", 1)
    killed_run(recipe, tmp_path / "killed", 1, [KILL, KILL])
    assert_same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_two_processes(base, tmp_path):
    """One is killed, or both at once; where one is gone, the other does not wait for it."""
    recipe = dreambooth(tmp_path, base, max_steps=16, ema=True, accumulate=2, devices=2, strategy="ddp")
    finish(recipe, tmp_path / "whole", 2)
    kills = [(signal.SIGKILL, [0, 1]), (signal.SIGKILL, [1]), (signal.SIGKILL, [0])]
    killed_run(recipe, tmp_path / "killed", 2, kills)
    assert_same(tmp_path / "whole", tmp_path / "killed")
