"""Machines without Slurm: torchrun starts the processes."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dermsynth.run.configuration import read_configuration

ROOT = Path(__file__).parents[2]
RECIPE = """
trainer:
  accelerator: cpu
  precision: 32-true
  max_steps: 2
  num_sanity_val_steps: 0
  logger: false
  enable_progress_bar: false
model: {class_path: toy.Line}
data: {class_path: toy.Data}
"""
(LINE,) = re.findall(r"^torchrun .*", (ROOT / "LightningCLI.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def torchrun(folder, *flags, **environment):
    (folder / "toy.yaml").write_text(RECIPE)
    (folder / "toy.py").write_text((ROOT / "tests/toy.py").read_text())
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*program, "-m", "--", "dermsynth", "fit", "--config", "toy.yaml", "--run", "run", *flags]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=240
    )


def test_the_line_of_the_page_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    started, _, ours = LINE.partition(" -m -- dermsynth ")
    stage, *words = shlex.split(ours)
    trainer = read_configuration(stage, words)["trainer"]
    assert f"--nnodes {trainer['num_nodes']} --nproc-per-node {trainer['devices']} " in started


@pytest.mark.slow
def test_its_processes_are_one_training(tmp_path):
    done = torchrun(tmp_path, "--trainer.devices", "2")
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    assert (done.stdout + done.stderr).count("finished: run") == 1
    assert (tmp_path / "run/finished").is_file()


@pytest.mark.slow
def test_other_devices_than_it_started_processes_are_refused(tmp_path):
    done = torchrun(tmp_path, "--trainer.devices", "1")
    assert done.returncode != 0
    assert "torchrun started 2 processes, but trainer.devices × trainer.num_nodes is 1" in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_within_a_slurm_job_its_processes_are_one_training_too(tmp_path):
    # As in a job of one task, which starts torchrun: by Slurm's variables each process would be the only one.
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    done = torchrun(tmp_path, "--trainer.devices", "2", **job, SLURM_NODEID="0", SLURM_NODELIST="localhost")
    assert done.returncode == 0, done.stderr
    assert "Starting with 2 processes" in done.stderr
    assert (done.stdout + done.stderr).count("finished: run") == 1
