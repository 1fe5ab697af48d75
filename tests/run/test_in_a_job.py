"""What training.py does otherwise in a Slurm job, told by its variables."""

from pathlib import Path

import pytest

from dermsynth.cli import main

JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "1", "SLURM_NODELIST": "localhost"}
JOB |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
WARNING = "warning: trainer.callbacks has no Preemption"


@pytest.fixture
def job(monkeypatch):
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("environment", [{}, JOB], ids=["outside", "in a job"])
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_checkpoints_of_lightnings_requeue_are_refused(here, monkeypatch, capsys, stage, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["fit", "--config", "line.yaml", "--run", "first"]) == 0
    last = Path("first/checkpoints/last.ckpt")
    Path("run").mkdir()
    foreign = Path("run/hpc_ckpt_1.ckpt")
    foreign.write_bytes(last.read_bytes())
    given = ["--ckpt_path", str(last)] if stage == "test" else []
    capsys.readouterr()
    command = [stage, "--config", "line.yaml", "--run", "run", *given]
    assert main(command) == 2
    assert f"{foreign}: a checkpoint that Lightning's own requeue left there" in capsys.readouterr().err
    foreign.unlink()
    assert main(command) == 0


def test_a_training_that_slurm_could_kill_unprepared_warns_of_it(here, job, capsys):
    assert main(["fit", "--config", "line.yaml", "--run", "r", "--without", "[Preemption]"]) == 0
    assert capsys.readouterr().out.count(WARNING) == 1
    assert main(["validate", "--config", "line.yaml", "--run", "r", "--ckpt_path", "r/checkpoints/last.ckpt"]) == 0
    assert main(["fit", "--config", "line.yaml", "--run", "other", "--trainer.fast_dev_run", "true"]) == 0
    assert main(["fit", "--config", "line.yaml", "--run", "prepared"]) == 0
    assert WARNING not in capsys.readouterr().out


def test_outside_a_job_nothing_is_warned_of(here, capsys):
    assert main(["fit", "--config", "line.yaml", "--run", "r", "--without", "[Preemption]"]) == 0
    assert WARNING not in capsys.readouterr().out
