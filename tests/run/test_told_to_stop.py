"""Stages that keep nothing end at once when they are told to stop, on several processes too."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import TIMEOUT, Ranks

ROOT = Path(__file__).parents[2]
RECIPE = """\
trainer:
  accelerator: cpu
  precision: 32-true
  devices: 2
  strategy: ddp
  logger: false
  enable_progress_bar: false
  callbacks: [{class_path: toy.Held, init_args: {hook: on_STAGE_batch_start}}]
model: {class_path: toy.Line}
data: {class_path: toy.Data}
"""


def until(true):
    deadline = time.monotonic() + TIMEOUT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def both_are_held(folder):
    return all((folder / f"run/held-{rank}").is_file() for rank in (0, 1))


@pytest.mark.parametrize(("command", "stage"), [("validate", "validation"), ("predict", "predict")])
@pytest.mark.parametrize("rank", [0, 1])
def test_no_rank_asks_the_other(tmp_path, command, stage, rank):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("STAGE", stage))
    ranks = Ranks([command, "--config", "recipe.yaml", "--run", "run"], 2, tmp_path)
    until(lambda: both_are_held(tmp_path))
    ranks.send(rank, signal.SIGTERM)
    ranks.processes[rank].join(TIMEOUT)
    ranks.send(1 - rank, signal.SIGTERM)  # as srun and torchrun do
    assert ranks.statuses() == [-signal.SIGTERM] * 2, ranks.log(rank)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_processes_that_lightning_started_end_with_the_first(tmp_path, number):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("STAGE", "predict"))
    shutil.copy(ROOT / "tests/toy.py", tmp_path)
    command = [sys.executable, "-m", "dermsynth", "predict", "--config", "recipe.yaml", "--run", "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: both_are_held(tmp_path) or process.poll() is not None)
    process.send_signal(number)
    # Both write into the pipe, so that it ends when they have.
    printed, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -number, printed.decode()
